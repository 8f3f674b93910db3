//! `groundstation token …`: named tokens of the HTTP API, over a pod.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use strum::IntoEnumIterator;
use time::OffsetDateTime;

use super::api::ApiArgs;
use super::confirm::YesArgs;
use super::named::NoToken;
use super::output::{OutputArgs, Shown, print_line};
use super::{moment, table, tags};
use crate::clients::client::{Client, NewToken};
use crate::contract::tokens::{SelectorJson, TokenJson};
use crate::contract::wire::Timestamp;
use crate::domain::access::{Role, Selector};

#[derive(Args)]
pub struct TokenArgs {
    #[command(flatten)]
    api: ApiArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make a token; prints it this once
    Create {
        /// 1 to 200 characters; what is done with the token is recorded under it
        #[arg(long)]
        name: String,
        /// admin: everything; operator: satellites and what they check, but no tokens; read: only to look; enrol: only to
        /// register satellites by themselves, within the region and the tags, which are added
        #[arg(long, value_parser = PossibleValuesParser::new(Role::iter().map(Role::as_str)))]
        role: String,
        /// Only the satellites of this region
        #[arg(long)]
        region: Option<String>,
        /// Only the satellites with this tag; may be given several times, then only those with all of them
        #[arg(long = "tag", value_name = "NAME:VALUE")]
        tags: Vec<String>,
        /// Valid for so long, such as 12h or 90d [default: until it is revoked]
        #[arg(long, value_name = "SPAN", conflicts_with = "expires_at")]
        expires_in: Option<String>,
        /// Valid until then, such as 2027-03-01T12:00:00Z
        #[arg(long, value_name = "TIME")]
        expires_at: Option<Timestamp>,
        /// How many satellites a token for enrolment registers [default: nobody counts]
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
        uses: Option<i64>,
    },
    /// List the tokens, who made them and when they were last used
    List,
    /// Revoke a token: within a second it opens nothing on any pod
    Revoke {
        /// The token's id, or its name
        #[arg(id = "which", value_name = "NAME")]
        which: String,
        #[command(flatten)]
        yes: YesArgs,
    },
}

/// Runs `groundstation token …`.
pub fn run(args: TokenArgs) -> anyhow::Result<()> {
    let (client, output) = (args.api.client()?, args.output);
    match args.command {
        TokenCommand::Create { name, role, region, tags, expires_in, expires_at, uses } => {
            output.refuse_names("the token is shown this once and would be lost")?;
            let selector = Selector { region, tags: tags::parse("--tag", &tags)? };
            let now = OffsetDateTime::now_utc();
            let expires_in = expires_in.as_deref();
            let expires_in =
                expires_in.map(|span| moment::after(now, "--expires-in", span)).transpose()?;
            let new = NewToken {
                name: &name,
                role: &role,
                selector: SelectorJson::told(selector),
                expires_at: expires_at.or(expires_in),
                uses,
            };
            let made = client.make_token(&new)?;
            if output.is_for_programs() {
                return output.print(&made, Shown::NOTHING_ELSE);
            }
            print_line!("id     {}", made.token.id);
            print_line!("token  {}  (shown this once)", made.secret);
        }
        TokenCommand::List => {
            let tokens = client.tokens()?;
            let names = || tokens.iter().map(|token| token.name.clone()).collect();
            output.print(&tokens, Shown { table: &|_| listing(&tokens), names: &names })?;
        }
        TokenCommand::Revoke { which, yes } => {
            let token = find(&client, &which)?;
            yes.confirm(&format!("Revoke {}, which shuts out whoever uses it", token.name))?;
            client.revoke_token(token.id)?;
            let table = |_| format!("revoked {} ({})", token.name, token.id);
            let answer = serde_json::json!({"revoked": token.id});
            output.print(&answer, Shown { table: &table, names: &|| vec![token.name.clone()] })?;
        }
    }
    Ok(())
}

fn find(client: &Client, which: &str) -> anyhow::Result<TokenJson> {
    let is_it = |token: &TokenJson| token.name == which || token.id.to_string() == which;
    let found = client.tokens()?.into_iter().find(is_it);
    Ok(found.ok_or_else(|| NoToken(which.to_owned()))?)
}

fn listing(tokens: &[TokenJson]) -> String {
    let moment = |at: Option<Timestamp>| at.map_or("-".to_owned(), |at| at.to_string());
    let rows: Vec<[String; 8]> = tokens
        .iter()
        .map(|token| {
            [
                token.id.to_string(),
                token.name.clone(),
                token.role.to_string(),
                reach(token.selector.as_ref()),
                token.created_by.id.clone(),
                moment(token.expires_at),
                moment(token.last_used_at),
                token.uses_left.map_or("-".to_owned(), |uses| uses.to_string()),
            ]
        })
        .collect();
    let columns = ["ID", "NAME", "ROLE", "REACHES", "MADE BY", "EXPIRES", "LAST USED", "USES LEFT"];
    table::render(columns, &rows, &[])
}

fn reach(selector: Option<&SelectorJson>) -> String {
    selector.map_or("everything".to_owned(), table::selector)
}
