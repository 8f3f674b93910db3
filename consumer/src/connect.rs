use async_nats::{Client, ConnectOptions, ServerAddr};

use crate::error::Error;

/// Connects to NATS at an address that may have a user and a password, which `async_nats::connect` ignores.
///
/// # Errors
///
/// [`Error::Nats`] if it is no address, or nobody answers there.
pub async fn connect(address: &str) -> Result<Client, Error> {
    let server: ServerAddr = address.parse().map_err(Error::nats)?;
    let options = match (server.username(), server.password()) {
        (Some(user), Some(password)) => {
            ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        }
        _ => ConnectOptions::new(),
    };
    options.connect(&server).await.map_err(Error::nats)
}
