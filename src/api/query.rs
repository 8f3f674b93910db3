//! A parameter that a route does not know, or that comes twice and is no list, is refused, rather than to answer
//! another question than was asked.
//!
//! What a route knows is what `/openapi.json` says of it.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{RefOr, Schema};

use super::openapi;
use super::problem::Problem;

/// How much of a name is said back.
const MAX_SHOWN: usize = 64;

/// The parameters of an operation.
#[derive(Default)]
struct Known {
    names: Vec<String>,
    /// Which of them may come several times.
    lists: Vec<String>,
}

/// Those of each operation, by method and path.
static KNOWN: LazyLock<HashMap<(Method, String), Known>> = LazyLock::new(|| {
    let mut known = HashMap::new();
    for (path, item) in openapi::api().paths.paths {
        let operations = [
            (Method::GET, item.get),
            (Method::PUT, item.put),
            (Method::POST, item.post),
            (Method::PATCH, item.patch),
            (Method::DELETE, item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                known.insert((method, path.clone()), parameters(operation));
            }
        }
    }
    known
});

fn parameters(operation: Operation) -> Known {
    let mut known = Known::default();
    for parameter in operation.parameters.unwrap_or_default() {
        match parameter {
            RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => {
                if matches!(parameter.schema, Some(RefOr::T(Schema::Array(_)))) {
                    known.lists.push(parameter.name.clone());
                }
                known.names.push(parameter.name);
            }
            // Each route describes its own.
            RefOr::T(_) | RefOr::Ref(_) => {}
        }
    }
    known
}

/// Lets a request through whose query has nothing but what its route knows.
pub async fn check(path: MatchedPath, request: Request, next: Next) -> Result<Response, Problem> {
    if let Some(query) = request.uri().query() {
        // Whoever asks for the head alone asks as for the whole.
        let method = match request.method() {
            &Method::HEAD => Method::GET,
            method => method.clone(),
        };
        let nothing = Known::default();
        let known = KNOWN.get(&(method, path.as_str().to_owned())).unwrap_or(&nothing);
        let mut given = HashSet::new();
        for (name, _) in form_urlencoded::parse(query.as_bytes()) {
            if !known.names.iter().any(|known| *known == name) {
                return Err(Problem::unknown_parameter(&shown(&name), &known.names));
            }
            let is_list = known.lists.iter().any(|list| *list == name);
            if !given.insert(name.clone()) && !is_list {
                return Err(Problem::parameter_twice(&name));
            }
        }
    }
    Ok(next.run(request).await)
}

fn shown(name: &str) -> String {
    name.chars().take(MAX_SHOWN).collect()
}
