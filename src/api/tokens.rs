//! `/v1/tokens`: named tokens, for administrators and programs. Only admin tokens that reach the whole fleet get here.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use deadpool_postgres::Object;
use secrecy::ExposeSecret;
use serde::Serialize;
use tracing::{info, warn};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::caller::Caller;
use super::problem::Problem;
use crate::contract::tokens::TokenJson;
use crate::registry::tokens::{self, Created, NewToken};

/// All tokens.
#[derive(Serialize, ToSchema)]
#[schema(as = TokenList)]
pub struct List {
    /// By name; those that have expired are among them until they are revoked.
    #[schema(max_items = 1000)]
    tokens: Vec<TokenJson>,
}

/// List the named tokens
///
/// Those of the settings are not among them, nor those that were revoked. None is shown itself.
#[utoipa::path(get, operation_id = "listTokens", path = "/v1/tokens", tag = "tokens", responses(
    (status = 200, description = "All of them", body = List),
))]
pub async fn list(State(api): State<Arc<Api>>) -> Result<Json<List>, Problem> {
    let tokens = api.reads.run(async |client| tokens::list(client).await).await?;
    Ok(Json(List { tokens }))
}

/// A token that was made.
#[derive(Serialize, ToSchema)]
pub struct MadeToken {
    /// As it is listed.
    token: TokenJson,
    /// The token itself, shown only in this answer.
    secret: String,
}

/// Make a named token
///
/// It is valid at once on this pod, and within a second on all others. There are at most 1,000.
#[utoipa::path(
    post, operation_id = "createToken",
    path = "/v1/tokens",
    tag = "tokens",
    request_body = NewToken,
    responses(
        (status = 201, description = "It is made", body = MadeToken),
        (status = 409, description = "Another is called so, or there are as many as there may be",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
    )
)]
pub async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    body: Result<Json<NewToken>, JsonRejection>,
) -> Result<impl IntoResponse, Problem> {
    let Json(new) = body?;
    let new = new.check()?;
    let author = caller.author();
    let create = async |client: &mut Object| tokens::create(client, &new, &author).await;
    match api.writes.run(create).await? {
        Created::New { token, secret } => {
            info!(token = %token.id, name = %token.name, role = %token.role, by = %author.actor.id, "token made");
            api.tokens_changed().await;
            let secret = secret.expose_secret().to_owned();
            Ok((StatusCode::CREATED, Json(MadeToken { token: *token, secret })))
        }
        Created::NameTaken => Err(Problem::token_name_taken()),
        Created::TooMany => Err(Problem::too_many_tokens()),
        Created::Expired => Err(Problem::wrong_parameter("expiresAt", "must be in the future")),
    }
}

/// Revoke a named token
///
/// It opens nothing any more: at once on this pod, and within a second on all others. Sessions of the page and live
/// streams that it has opened end, and its name is free.
#[utoipa::path(
    delete, operation_id = "revokeToken",
    path = "/v1/tokens/{id}",
    tag = "tokens",
    params(("id" = Uuid, Path, description = "The token")),
    responses(
        (status = 204, description = "It is revoked"),
        (status = 404, description = "There is no such token",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
    )
)]
pub async fn revoke(
    State(api): State<Arc<Api>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(text) = path?;
    let shown: String = text.chars().take(64).collect();
    let id = Uuid::try_parse(&text).map_err(|_| Problem::no_token(&shown))?;
    let author = caller.author();
    let revoke = async |client: &mut Object| tokens::revoke(client, id, &author).await;
    let name = api.writes.run(revoke).await?.ok_or_else(|| Problem::no_token(&shown))?;
    info!(token = %id, name, by = %author.actor.id, "token revoked");
    api.tokens_changed().await;
    Ok(StatusCode::NO_CONTENT)
}

impl Api {
    /// Makes this pod, before it answers, and then the others know which tokens there are.
    async fn tokens_changed(&self) {
        if let Err(error) = self.access.look().await {
            warn!(%error, "cannot ask for named tokens: this pod finds the change a little later");
        }
        self.changed.tell();
    }
}
