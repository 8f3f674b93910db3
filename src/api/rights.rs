//! What a caller may do: by its role, and within the part of the fleet that its token reaches.
//!
//! The one place where both are decided, before any route. What no line here allows is refused, so a new route is shut
//! to operators' changes, and to tokens that reach a part of the fleet, until it is named here. Routes that show many
//! satellites at once take the caller's selector into account themselves.

use axum::extract::RawPathParams;
use axum::http::Method;
use deadpool_postgres::Object;
use uuid::Uuid;

use super::Api;
use super::caller::{Caller, Credential};
use super::problem::Problem;
use crate::domain::access::Role;
use crate::log::within;

const TOKENS: &str = "/v1/tokens";

/// Who changed what. It shows all of the fleet and its tokens' names.
const AUDIT: &str = "/v1/audit";

/// By which satellites register themselves. Whoever may register others may do so here too.
const ENROL: &str = "/v1/enrol";

/// What operators change is below these.
const SATELLITES: &str = "/v1/satellites";
const SETS: &str = "/v1/assignment-sets";
const MAINTENANCE: &str = "/v1/maintenance";

/// All routes of one satellite are below this.
const ONE_SATELLITE: &str = "/v1/satellites/{id}";

/// Routes that show a caller only the satellites that its token reaches, or none at all.
const BOUNDED: [&str; 14] = [
    SATELLITES,
    ENROL,
    SETS,
    "/v1/assignment-sets/{name}",
    MAINTENANCE,
    "/v1/maintenance/{id}",
    "/v1/fleet",
    "/v1/fleet/timeline",
    "/v1/intervals",
    "/v1/transitions",
    "/v1/transitions/stream",
    "/v1/triggers",
    "/v1/what-if",
    "/v1/prometheus/sd",
];

/// Whether a path is this one, or below it.
fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a method changes nothing.
pub fn is_look(method: &Method) -> bool {
    [Method::GET, Method::HEAD].contains(method)
}

/// Refuses what the role does not allow. `path` is the route's, with the names of its parameters.
pub fn check(caller: &Caller, method: &Method, path: &str) -> Result<(), Problem> {
    let (is_look, is_bounded) = (is_look(method), caller.selector().is_bounded());
    let why = match caller.role() {
        Role::Enrol if path == ENROL => return Ok(()),
        Role::Enrol => "is for enrolment: it opens nothing but POST /v1/enrol",
        Role::Admin if !is_bounded => return Ok(()),
        _ if is_below(path, TOKENS) => {
            "may not see tokens: use an admin token that reaches the whole fleet"
        }
        _ if is_below(path, AUDIT) => {
            "may not see the audit: use an admin token that reaches the whole fleet"
        }
        Role::Read if !is_look => "may only GET; use the admin token",
        Role::Operator
            if !is_look
                && path != ENROL
                && !is_below(path, SATELLITES)
                && !is_below(path, SETS)
                && !is_below(path, MAINTENANCE) =>
        {
            "is an operator's, who changes satellites, what they check and when they are in maintenance, and nothing else; use an admin token"
        }
        _ if is_bounded && !is_below(path, ONE_SATELLITE) && !BOUNDED.contains(&path) => {
            "reaches a part of the fleet, and this route shows all of it; use a token without a selector"
        }
        Role::Admin | Role::Operator | Role::Read => return Ok(()),
    };
    let whose = match (caller.credential(), caller.name()) {
        (Credential::Person(_), Some(name)) => format!("The session of {name:?}"),
        (_, Some(name)) => format!("The token {name:?}"),
        (_, None) => format!("The {} token", caller.role().as_str()),
    };
    Err(Problem::forbidden(&format!("{whose} {why}.")))
}

/// Answers for a satellite that the caller's token does not reach as for one that is not there.
pub async fn reach(
    api: &Api,
    caller: &Caller,
    path: &str,
    parameters: Option<&RawPathParams>,
) -> Result<(), Problem> {
    let selector = caller.selector();
    if !selector.is_bounded() || !is_below(path, ONE_SATELLITE) {
        return Ok(());
    }
    let mut parameters = parameters.into_iter().flatten();
    let id = parameters.find(|(name, _)| *name == "id").map(|(_, id)| id);
    // What is no id names no satellite: its route says so.
    let Some(id) = id.and_then(|id| Uuid::try_parse(id).ok()) else { return Ok(()) };
    let look = async |client: &mut Object| within::among(client, &[id], selector).await;
    match api.reads.run(look).await?.contains(&id) {
        true => Ok(()),
        false => Err(Problem::no_satellite(&id.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::person::Person;
    use crate::domain::access::Selector;
    use crate::platform::token::Digest;
    use crate::registry::tokens::Known;
    use strum::IntoEnumIterator;

    fn caller(role: Role, region: Option<&str>) -> Caller {
        let selector = Selector { region: region.map(str::to_owned), ..Selector::default() };
        let (id, name, digest) = (Uuid::nil(), "deploy".to_owned(), Digest::of("x"));
        let known = Known { id, name, role, selector, digest, expires_at: None };
        Credential::Named(known.into()).into()
    }

    /// Each route by what it is: a look, a change, and which of either.
    #[test]
    fn a_role_may_do_what_the_table_says() {
        let routes = [
            (Method::GET, "/v1/satellites"),
            (Method::POST, "/v1/satellites"),
            (Method::DELETE, "/v1/satellites/{id}"),
            (Method::GET, "/v1/transitions/stream"),
            (Method::GET, "/v1/audit"),
            (Method::GET, "/v1/assignment-sets"),
            (Method::PUT, "/v1/assignment-sets/{name}"),
            (Method::GET, "/v1/tokens"),
            (Method::POST, "/v1/tokens"),
            (Method::DELETE, "/v1/tokens/{id}"),
            (Method::POST, "/v1/enrol"),
            (Method::GET, "/v1/maintenance"),
            (Method::DELETE, "/v1/maintenance/{id}"),
            // Of a later version.
            (Method::GET, "/v1/outages"),
            (Method::POST, "/v1/settings"),
            (Method::POST, "/v1/satellitesque"),
        ];
        let all = |may: &str| may.chars().map(|c| c == 'x').collect::<Vec<_>>();
        for (role, region, may) in [
            (Role::Admin, None, "xxxxxxxxxxxxxxxx"),
            (Role::Operator, None, "xxxx-xx---xxxx--"),
            (Role::Read, None, "x--x-x-----x-x--"),
            (Role::Enrol, None, "----------x-----"),
            (Role::Admin, Some("eu"), "xxxx-xx---xxx---"),
            (Role::Operator, Some("eu"), "xxxx-xx---xxx---"),
            (Role::Read, Some("eu"), "x--x-x-----x----"),
            (Role::Enrol, Some("eu"), "----------x-----"),
        ] {
            let caller = caller(role, region);
            let found: Vec<bool> =
                routes.iter().map(|(method, path)| check(&caller, method, path).is_ok()).collect();
            assert_eq!(found, all(may), "{role:?} {region:?}");
        }
        assert_eq!(Role::iter().count(), 4);
    }

    #[test]
    fn a_refusal_names_the_token_and_what_to_use() {
        for (caller, words) in [
            (caller(Role::Read, None), ["The token \"deploy\" may only GET", "admin token"]),
            (caller(Role::Enrol, None), ["\"deploy\" is for enrolment", "POST /v1/enrol"]),
            (
                Credential::Setting(Role::Read, Digest::of("x")).into(),
                ["The read token may only GET", "admin token"],
            ),
            (
                Credential::Person(
                    Person {
                        name: "ada".to_owned(),
                        role: Role::Read,
                        selector: Selector::default(),
                        session: None,
                    }
                    .into(),
                )
                .into(),
                ["The session of \"ada\" may only GET", "admin token"],
            ),
        ] {
            let problem = check(&caller, &Method::POST, SATELLITES).expect_err("refused");
            assert_eq!(problem.code(), 403);
            assert!(
                words.iter().all(|word| problem.detail().contains(word)),
                "{}",
                problem.detail()
            );
        }
    }
}
