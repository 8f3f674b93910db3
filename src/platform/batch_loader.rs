//! Combines many single reads into one statement. A read goes into the next statement; it does not
//! wait for further reads.
//!
//! A thousand satellites that connect at the same moment cost a few statements this way, not a
//! thousand of each kind. A read sees what was committed when it was requested, or later.

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

/// Reads that wait for the next statement. Further callers wait for a place in this queue.
const QUEUE: usize = 4 * MAX_BATCH;

/// Statements at once: new reads need not wait for the answer of a running statement.
const LANES: usize = 2;

/// How long a statement may take. This is shorter than an agent's patience, so that one broken
/// connection does not make every agent give up.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Values of satellites that can be read many at a time.
pub trait Read: Clone + Send + Sized + 'static {
    /// Reads the value of each of these satellites that has one.
    fn read(
        client: &Object,
        satellites: &[SatelliteId],
    ) -> impl Future<Output = anyhow::Result<Vec<(SatelliteId, Self)>>> + Send;
}

/// The value could not be read; the text says why.
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
    /// Reads from this database. The tasks end when the last clone of the loader is dropped.
    pub fn new(database: &Database) -> BatchLoader<V> {
        let (questions, asked) = mpsc::channel(QUEUE);
        let asked = Arc::new(Mutex::new(asked));
        for _ in 0..LANES {
            tokio::spawn(answer(database.clone(), asked.clone()));
        }
        BatchLoader { questions }
    }

    /// The value of one satellite; none if there is nothing to read.
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
        // Satellites whose callers have given up need not be read.
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
                tracing::trace!(%satellite, "the caller has given up");
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
