//! Clients that take every connection a database gives, for as long as the drill that sent them.

use super::writer::{Login, connect};
use std::time::Duration;
use tokio::task::JoinHandle;

/// The pause before another try where no connection is given.
const PAUSE: Duration = Duration::from_millis(100);
/// A try is given up after this.
const LIMIT: Duration = Duration::from_secs(5);
/// A database that gives more than these cannot be filled from here: each costs this host a descriptor.
const MOST: usize = 900;

/// The clients. All let go when this is dropped, and when the process ends, however it ends.
pub struct Crowd(JoinHandle<()>);

impl Crowd {
    /// Begins to take connections, also those that others give back.
    pub fn gather(login: Login) -> Self {
        Self(tokio::spawn(async move {
            let mut clients = Vec::new();
            loop {
                clients.retain(|client: &tokio_postgres::Client| !client.is_closed());
                let room = clients.len() < MOST;
                match tokio::time::timeout(LIMIT, connect(&login)).await {
                    Ok(Ok(client)) if room => clients.push(client),
                    Ok(_) | Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        }))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.0.abort();
    }
}
