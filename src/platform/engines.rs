//! Servers that speak the protocol of PostgreSQL and are something else.
//!
//! Some take the whole schema and then keep no promise: an advisory lock that locks nothing gives two transitions one
//! position. So a server is asked for its name before anything is made in it or read from it. It tells more than the
//! version number does, which several of them choose to be that of a new PostgreSQL. What is PostgreSQL with other
//! storage around it (Aurora PostgreSQL, AlloyDB, Neon) says that it is PostgreSQL, and is taken.

use anyhow::{Context, bail};
use tokio_postgres::SimpleQueryMessage;

/// The oldest supported server: the SQL has no `MERGE`, but the schema `public` must not be writable by every role.
pub const OLDEST_SERVER: i32 = 15;

/// What a server calls itself. It is asked first and alone: not all of them know the functions of [`SERVER`].
pub const VERSION: &str = "select version()";

/// The number of its version, and whether it has the function by which Aurora DSQL is known, which calls itself
/// PostgreSQL.
pub const SERVER: &str = "
    select current_setting('server_version_num')::int / 10000,
           exists (select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
                    where n.nspname = 'sys' and p.proname = 'dsql_major_version')";

/// A word of `version()`, the engine it is of, and what that engine lacks.
const REFUSED: [(&str, &str, &str); 8] = [
    (
        "CockroachDB",
        "CockroachDB",
        "advisory locks of a session lock nothing there, and a partition is no table that can be dropped",
    ),
    (
        "-YB-",
        "YugabyteDB",
        "it has no system column xmin, by which the log checks that positions follow each other",
    ),
    ("Redshift", "Amazon Redshift", "it has no triggers and no partitions, and checks no key"),
    ("Greenplum", "Greenplum", NO_TRIGGERS),
    ("Cloudberry", "Apache Cloudberry", NO_TRIGGERS),
    ("CrateDB", "CrateDB", "it has no transactions"),
    (
        "QuestDB",
        "QuestDB",
        "it has no row locks, no triggers and no roles as the schema needs them",
    ),
    ("RisingWave", "RisingWave", "it has no transactions that read and write"),
];

/// The log's checks are triggers that read it.
const NO_TRIGGERS: &str = "its triggers cannot read tables, and those that check the log do";

/// Refuses what is not PostgreSQL, by its answer to [`VERSION`]. Both are asked as simple queries: a pooler that mixes
/// sessions fails prepared ones before it is found.
pub fn check_version(answer: &[SimpleQueryMessage]) -> anyhow::Result<()> {
    check_engine(value(answer, 0)?)
}

/// Refuses a server that is too old, and Aurora DSQL, by the answer to [`SERVER`].
pub fn check_number(answer: &[SimpleQueryMessage]) -> anyhow::Result<()> {
    let number = value(answer, 0)?.parse().context("the database's version is no number")?;
    check_server(number, value(answer, 1)? == "t")
}

fn value(answer: &[SimpleQueryMessage], column: usize) -> anyhow::Result<&str> {
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let value = row.and_then(|row| row.try_get(column).ok().flatten());
    value.context("the database does not say its version")
}

/// Refuses an engine that is not PostgreSQL, by what it calls itself.
fn check_engine(version: &str) -> anyhow::Result<()> {
    if let Some((_, engine, lack)) = REFUSED.iter().find(|(word, ..)| version.contains(word)) {
        bail!("the database is {engine}, which only looks like PostgreSQL: {lack}; {USE_POSTGRES}");
    }
    if !version.starts_with("PostgreSQL ") {
        let name: String = version.chars().take(60).collect();
        bail!(
            "the database calls itself `{name}`, which is not known to be PostgreSQL; {USE_POSTGRES}"
        );
    }
    Ok(())
}

/// Refuses a server that is too old, and Aurora DSQL.
fn check_server(version: i32, is_dsql: bool) -> anyhow::Result<()> {
    if is_dsql {
        bail!(
            "the database is Aurora DSQL, which only looks like PostgreSQL: it has no triggers, no partitions, no \
             PL/pgSQL and no READ COMMITTED; {USE_POSTGRES}"
        );
    }
    if version < OLDEST_SERVER {
        bail!("PostgreSQL {version} is too old: {OLDEST_SERVER} or newer is needed");
    }
    Ok(())
}

const USE_POSTGRES: &str = "use PostgreSQL itself (docs/operations.md, Which Postgres)";

#[cfg(test)]
mod tests {
    use super::*;

    /// What servers answered to `select version()`.
    #[test]
    fn an_engine_is_taken_or_refused_by_what_it_calls_itself() {
        let cases = [
            (
                "PostgreSQL 18.6 (Ubuntu 18.6-1.pgdg26.04+1) on x86_64-pc-linux-gnu, compiled by gcc (Ubuntu 15.2.0-16ubuntu1) 15.2.0, 64-bit",
                None,
            ),
            // Aurora PostgreSQL, Neon, AlloyDB.
            ("PostgreSQL 11.7 on x86_64-pc-linux-gnu, compiled by gcc (GCC) 4.9.3, 64-bit", None),
            (
                "PostgreSQL 17.5 (6bc9ef8) on aarch64-unknown-linux-gnu, compiled by gcc (Debian 12.2.0-14+deb12u1) 12.2.0, 64-bit",
                None,
            ),
            (
                "PostgreSQL 17.7 on x86_64-pc-linux-gnu, compiled by Debian clang version 12.0.1, 64-bit",
                None,
            ),
            (
                "PostgreSQL 17.4 (EnterpriseDB Advanced Server 17.4.0) on x86_64-pc-linux-gnu, compiled by gcc (GCC) 11.5.0 20240719 (Red Hat 11.5.0-5), 64-bit",
                None,
            ),
            (
                "PostgreSQL 18.4 - Percona Server for PostgreSQL 18.4.1 on x86_64-pc-linux-gnu, compiled by gcc (Ubuntu 15.2.0-16ubuntu1) 15.2.0, 64-bit",
                None,
            ),
            ("PostgreSQL 17.10 (PolarDB 17.10.1.0 build accf02e2) on x86_64-linux-gnu", None),
            (
                "CockroachDB CCL v25.3.0 (x86_64-pc-linux-gnu, built 2025/08/14 18:25:15, go1.23.7 X:nocoverageredesign)",
                Some("CockroachDB"),
            ),
            (
                "PostgreSQL 15.12-YB-2025.2.3.2-b0 on x86_64-pc-linux-gnu, compiled by clang version 19.1.0, 64-bit",
                Some("YugabyteDB"),
            ),
            (
                "PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2 20041017 (Red Hat 3.4.2-6.fc3), Redshift 1.0.198462",
                Some("Redshift"),
            ),
            (
                "PostgreSQL 12.12 (Greenplum Database 7.4.0 build commit:27de6dc6d00607a5630a41fd2c0ad489f40e2ad4) on x86_64-pc-linux-gnu, compiled by gcc (GCC) 8.5.0 20210514, 64-bit",
                Some("Greenplum"),
            ),
            (
                "PostgreSQL 14.4 (Apache Cloudberry 2.0.0-incubating build 1) on aarch64-unknown-linux-gnu, compiled by gcc (GCC) 11.5.0 20240719, 64-bit",
                Some("Cloudberry"),
            ),
            ("CrateDB 5.2.3", Some("CrateDB")),
            (
                "PostgreSQL 12.3, compiled by Visual C++ build 1914, 64-bit, QuestDB",
                Some("QuestDB"),
            ),
            (
                "PostgreSQL 13.14.0-RisingWave-2.3.2 (58c5893670f326f0922b9bc58c61c83cabeccaa8)",
                Some("RisingWave"),
            ),
            (
                "(openGauss 5.0.0 build a07d57c3) compiled at 2023-03-29 03:09:38 commit 0 last mr",
                Some("openGauss"),
            ),
            (
                "OrioleDB 18.4 (OrioleDB 1.8-beta16) on x86_64-pc-linux-gnu, compiled by gcc (Ubuntu 15.2.0-16ubuntu1) 15.2.0, 64-bit",
                Some("OrioleDB"),
            ),
        ];
        for (version, refused) in cases {
            match (check_engine(version), refused) {
                (Ok(()), None) => {}
                (Err(error), Some(name)) => {
                    let line = error.to_string();
                    assert!(line.contains(name) && line.lines().count() == 1, "{version}: {line}");
                }
                (result, _) => panic!("{version}: {result:?}"),
            }
        }
    }

    #[test]
    fn a_server_too_old_is_refused_and_so_is_one_that_is_dsql() {
        assert!(check_server(14, false).is_err());
        assert!(check_server(15, false).is_ok());
        let line = check_server(16, true).expect_err("Aurora DSQL").to_string();
        assert!(line.contains("Aurora DSQL"), "{line}");
    }
}
