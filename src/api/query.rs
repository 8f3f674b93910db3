//! Refuses a parameter that a route does not know, or that comes twice and is no list. Otherwise the answer would be
//! to another question than the caller asked.
//!
//! A route knows the parameters that `/openapi.json` describes.

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

/// Characters of an unknown name that an answer repeats.
const MAX_SHOWN: usize = 64;

/// The parameters of an operation.
#[derive(Default)]
struct Known {
    names: Vec<String>,
    /// The parameters that may come several times.
    lists: Vec<String>,
}

/// The parameters of each operation, by method and path.
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
            // Each route describes its own parameters.
            RefOr::T(_) | RefOr::Ref(_) => {}
        }
    }
    known
}

/// Lets a request through if its query has only parameters that its route knows.
pub async fn check(path: MatchedPath, request: Request, next: Next) -> Result<Response, Problem> {
    if let Some(query) = request.uri().query() {
        // HEAD takes the same parameters as GET.
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
