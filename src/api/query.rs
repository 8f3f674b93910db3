//! A parameter that a route does not know, or that comes twice, is refused, rather than to answer another question
//! than was asked.
//!
//! What a route knows is what `/openapi.json` says of it.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::{Operation, ParameterIn};

use super::openapi;
use super::problem::Problem;

/// How much of a name is said back.
const MAX_SHOWN: usize = 64;

/// The parameters of each operation, by method and path.
static KNOWN: LazyLock<HashMap<(Method, String), Vec<String>>> = LazyLock::new(|| {
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

fn parameters(operation: Operation) -> Vec<String> {
    let parameters = operation.parameters.unwrap_or_default().into_iter();
    let of_query = parameters.filter_map(|parameter| match parameter {
        RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => Some(parameter.name),
        // Each route describes its own.
        RefOr::T(_) | RefOr::Ref(_) => None,
    });
    of_query.collect()
}

/// Lets a request through whose query has nothing but what its route knows.
pub async fn check(path: MatchedPath, request: Request, next: Next) -> Result<Response, Problem> {
    if let Some(query) = request.uri().query() {
        // Whoever asks for the head alone asks as for the whole.
        let method = match request.method() {
            &Method::HEAD => Method::GET,
            method => method.clone(),
        };
        let known = KNOWN.get(&(method, path.as_str().to_owned()));
        let known = known.map(Vec::as_slice).unwrap_or_default();
        let mut given = HashSet::new();
        for (name, _) in form_urlencoded::parse(query.as_bytes()) {
            if !known.iter().any(|known| *known == name) {
                return Err(Problem::unknown_parameter(&shown(&name), known));
            }
            if !given.insert(name.clone()) {
                return Err(Problem::parameter_twice(&name));
            }
        }
    }
    Ok(next.run(request).await)
}

fn shown(name: &str) -> String {
    name.chars().take(MAX_SHOWN).collect()
}
