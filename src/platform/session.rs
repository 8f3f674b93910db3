//! What every session of a pool is asked for: the service's role and its limits.
//!
//! Sessions are asked by statements, because poolers such as PgBouncer do not pass the start-up parameter `options` on.
//! All of them are one message, whose last statement tells what the session then has. Nothing else runs on a session
//! that differs.

use std::time::Duration;

use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// The role a pod's sessions take.
pub const SERVICE_ROLE: &str = "groundstation_service";

/// The settings of a pool's sessions.
pub struct Settings {
    /// Names and values that are compared afterwards; the values are milliseconds.
    timeouts: [(&'static str, u128); 3],
    /// Further ones, each as `name = value`.
    more: &'static [&'static str],
}

/// The log needs an answered commit to survive a crash, whatever the default of the login or of the database is; a
/// stronger setting of the server stays.
const AT_LEAST_DURABLE: &str = "
    set_config('synchronous_commit',
               coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on'), false)";

impl Settings {
    /// Settings with these time-outs.
    pub fn new(
        lock: Duration,
        statement: Duration,
        idle_in_transaction: Duration,
        more: &'static [&'static str],
    ) -> Settings {
        let timeouts = [
            ("lock_timeout", lock.as_millis()),
            ("statement_timeout", statement.as_millis()),
            ("idle_in_transaction_session_timeout", idle_in_transaction.as_millis()),
        ];
        Settings { timeouts, more }
    }

    /// Asks a session for all of it. Returns how it differs from that afterwards, which should be nothing.
    pub async fn set(&self, session: &Client) -> Result<Vec<String>, Error> {
        // A statement has to see what was committed before it.
        let isolation = "default_transaction_isolation = 'read committed'".to_owned();
        let mut settings = vec![format!("role {SERVICE_ROLE}"), "jit = off".to_owned(), isolation];
        settings.extend(self.timeouts.iter().map(|(name, ms)| format!("{name} = {ms}")));
        settings.extend(self.more.iter().map(|&setting| setting.to_owned()));
        // Poolers know by the word SET that they have to clean the session after us.
        let statements: String =
            settings.iter().map(|setting| format!("set {setting};\n")).collect();
        self.compare(session, &format!("{statements}{}, {AT_LEAST_DURABLE}", self.question())).await
    }

    /// How a session differs from what was set. It does only if it is another one.
    pub async fn differences(&self, session: &Client) -> Result<Vec<String>, Error> {
        self.compare(session, &self.question()).await
    }

    fn question(&self) -> String {
        let milliseconds = |(name, _): &(&str, _)| {
            format!("(extract(epoch from current_setting('{name}')::interval) * 1000)::bigint")
        };
        let timeouts = self.timeouts.each_ref().map(milliseconds).join(", ");
        format!("select current_user, {timeouts}")
    }

    async fn compare(&self, session: &Client, question: &str) -> Result<Vec<String>, Error> {
        let mut wanted = vec![("role", SERVICE_ROLE.to_owned())];
        wanted.extend(self.timeouts.iter().map(|(name, ms)| (*name, ms.to_string())));
        let mut differences = Vec::new();
        for message in session.simple_query(question).await? {
            let SimpleQueryMessage::Row(row) = message else { continue };
            for (n, (name, wanted)) in wanted.iter().enumerate() {
                let is = row.try_get(n)?.unwrap_or_default();
                if is != wanted {
                    differences.push(format!("{name} is {is} and not {wanted}"));
                }
            }
        }
        Ok(differences)
    }
}
