//! Refuses a parameter that a route does not know, that comes twice and is no list, or that is of another kind than the
//! route takes. Otherwise the answer would be to another question than the caller asked.
//!
//! A route knows the parameters that `/openapi.json` describes. What is asked over NATS has the same ones, as the fields
//! of an object, and is refused with the same words ([`check_fields`]).

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Map, Value};
use utoipa::Number;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::schema::{Object, SchemaType};
use utoipa::openapi::{RefOr, Schema, Type};

use super::openapi;
use super::problem::Problem;

/// Characters of an unknown name that an answer repeats.
const MAX_SHOWN: usize = 64;

/// The parameters of an operation.
type Known = Vec<Parameter>;

/// A parameter, as the document describes it.
struct Parameter {
    name: String,
    kind: Kind,
}

/// What a parameter is. Its other limits are the route's to check.
enum Kind {
    Text,
    Bool,
    /// With its range, in words.
    Integer(String),
    /// It may come several times.
    List,
}

impl Parameter {
    fn of(name: String, schema: Option<RefOr<Schema>>) -> Parameter {
        let kind = match schema {
            Some(RefOr::T(Schema::Array(_))) => Kind::List,
            Some(RefOr::T(Schema::Object(object))) => match &object.schema_type {
                SchemaType::Type(Type::Boolean) => Kind::Bool,
                SchemaType::Type(Type::Integer) => Kind::Integer(range(&object)),
                _ => Kind::Text,
            },
            _ => Kind::Text,
        };
        Parameter { name, kind }
    }

    /// Whether a text of a query can be one.
    fn is_text_of(&self, text: &str) -> bool {
        match self.kind {
            Kind::Bool => text.parse::<bool>().is_ok(),
            Kind::Integer(_) => text.parse::<i64>().is_ok(),
            Kind::Text | Kind::List => true,
        }
    }

    /// Whether a value of JSON can be one; null is none.
    fn is_value_of(&self, value: &Value) -> bool {
        let is_list = |value: &Value| {
            value.as_array().is_some_and(|list| list.iter().all(|each| each.is_string()))
        };
        value.is_null()
            || match self.kind {
                Kind::Bool => value.is_boolean(),
                Kind::Integer(_) => value.as_i64().is_some(),
                Kind::Text => value.is_string(),
                Kind::List => value.is_string() || is_list(value),
            }
    }

    fn refused(&self) -> Problem {
        let (kind, range) = match &self.kind {
            Kind::Bool => ("true or false", ""),
            Kind::Integer(range) => ("a whole number", range.as_str()),
            Kind::Text => ("a text", ""),
            Kind::List => ("a list of texts", ""),
        };
        Problem::wrong_parameter(&self.name, &format!("must be {kind}{range}"))
    }
}

fn range(object: &Object) -> String {
    let number = |number: &Number| match number {
        Number::Int(number) => number.to_string(),
        Number::UInt(number) => number.to_string(),
        Number::Float(number) => number.to_string(),
    };
    match (object.minimum.as_ref().map(number), object.maximum.as_ref().map(number)) {
        (Some(least), Some(most)) => format!(" from {least} to {most}"),
        (Some(least), None) => format!(", {least} or more"),
        (None, Some(most)) => format!(", {most} or less"),
        (None, None) => String::new(),
    }
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
    let described = operation.parameters.unwrap_or_default().into_iter();
    let of_query = described.filter_map(|parameter| match parameter {
        RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => {
            Some(Parameter::of(parameter.name, parameter.schema))
        }
        // Each route describes its own parameters.
        RefOr::T(_) | RefOr::Ref(_) => None,
    });
    of_query.collect()
}

/// Lets a request through if its query has only parameters that its route knows.
pub async fn check(path: MatchedPath, request: Request, next: Next) -> Result<Response, Problem> {
    if let Some(query) = request.uri().query() {
        // HEAD takes the same parameters as GET.
        let method = match request.method() {
            &Method::HEAD => Method::GET,
            method => method.clone(),
        };
        let known = KNOWN.get(&(method, path.as_str().to_owned())).map_or(&[][..], Vec::as_slice);
        let mut given = HashSet::new();
        for (name, text) in form_urlencoded::parse(query.as_bytes()) {
            let Some(parameter) = known.iter().find(|known| known.name == name) else {
                let names: Vec<&str> = known.iter().map(|known| known.name.as_str()).collect();
                return Err(Problem::unknown_parameter(&shown(&name), &names));
            };
            if !given.insert(name.clone()) && !matches!(parameter.kind, Kind::List) {
                return Err(Problem::parameter_twice(&name));
            }
            if !parameter.is_text_of(&text) {
                return Err(parameter.refused());
            }
        }
    }
    Ok(next.run(request).await)
}

/// Checks that the fields of an object are what the parameters of the same names are of `GET` on a path. Others are
/// passed over: a body may have fields that only a later version knows.
pub fn check_fields(path: &str, object: &Map<String, Value>) -> Result<(), Problem> {
    let known = KNOWN.get(&(Method::GET, path.to_owned())).map_or(&[][..], Vec::as_slice);
    let is_wrong =
        |known: &&Parameter| object.get(&known.name).is_some_and(|value| !known.is_value_of(value));
    known.iter().find(is_wrong).map_or(Ok(()), |known| Err(known.refused()))
}

fn shown(name: &str) -> String {
    name.chars().take(MAX_SHOWN).collect()
}
