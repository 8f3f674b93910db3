//! Reads that many ask for at once, made together: whoever waits is in the next statement, and nobody
//! waits for others to come.
//!
//! A thousand satellites that connect in the same moment cost a few statements this way, not a
//! thousand each. What is read was committed when it was asked for, or later.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Object;
use thiserror::Error;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::domain::lifecycle::SatelliteId;
use crate::platform::database::Database;

/// Satellites in one statement.
const MAX_BATCH: usize = 500;

/// Askers that wait for the next statement; more wait to be among them.
const QUEUE: usize = 4 * MAX_BATCH;

/// Statements at once: while one waits for its answer, whoever comes does not wait for it.
const LANES: usize = 2;

/// How long a statement may take. Shorter than what an agent has patience for, so that one broken
/// connection is not everybody's.
const TIMEOUT: Duration = Duration::from_secs(4);

/// What can be read of satellites, many at a time.
pub trait Read: Clone + Send + Sized + 'static {
    /// Reads it of each of these satellites that has it.
    fn read(
        client: &Object,
        satellites: &[SatelliteId],
    ) -> impl Future<Output = anyhow::Result<Vec<(SatelliteId, Self)>>> + Send;
}

/// It could not be read, in these words.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Unanswered(Arc<str>);

type Answer<V> = Result<Option<V>, Unanswered>;

struct Question<V> {
    satellite: SatelliteId,
    answer: oneshot::Sender<Answer<V>>,
}

/// Reads values by id, many at once.
#[derive(Clone)]
pub struct BatchLoader<V> {
    questions: mpsc::Sender<Question<V>>,
}

impl<V: Read> BatchLoader<V> {
    /// Reads from this database, by tasks that end with the last of these.
    pub fn new(database: &Database) -> BatchLoader<V> {
        let (questions, asked) = mpsc::channel(QUEUE);
        let asked = Arc::new(Mutex::new(asked));
        for _ in 0..LANES {
            tokio::spawn(answer(database.clone(), asked.clone()));
        }
        BatchLoader { questions }
    }

    /// Of one satellite; none where there is nothing to be read of it.
    pub async fn of(&self, satellite: SatelliteId) -> Answer<V> {
        let ended = || Unanswered("the pod is shutting down".into());
        let (answer, answered) = oneshot::channel();
        let question = Question { satellite, answer };
        self.questions.send(question).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

async fn answer<V: Read>(database: Database, asked: Arc<Mutex<mpsc::Receiver<Question<V>>>>) {
    let mut questions = Vec::new();
    while asked.lock().await.recv_many(&mut questions, MAX_BATCH).await > 0 {
        // Who has given up meanwhile need not be looked up.
        questions.retain(|question| !question.answer.is_closed());
        let satellites: Vec<SatelliteId> =
            questions.iter().map(|question| question.satellite).collect();
        let read = read(&database, &satellites).await;
        for Question { satellite, answer } in questions.drain(..) {
            let told = match &read {
                Ok(found) => Ok(found.get(&satellite).cloned()),
                Err(error) => Err(error.clone()),
            };
            if answer.send(told).is_err() {
                tracing::trace!(%satellite, "nobody waits for this answer");
            }
        }
    }
}

async fn read<V: Read>(
    database: &Database,
    satellites: &[SatelliteId],
) -> Result<HashMap<SatelliteId, V>, Unanswered> {
    if satellites.is_empty() {
        return Ok(HashMap::new());
    }
    let found =
        database.run_within(TIMEOUT, async |client| V::read(client, satellites).await).await;
    match found {
        Ok(found) => Ok(found.into_iter().collect()),
        Err(failed) => Err(Unanswered(failed.to_string().into())),
    }
}
