//! Keeps a [`Table`] in step with the kernel: one dump at the start, then events.
//!
//! An event is published the moment it arrives, because a lost link is hard evidence (SM-13 c) and the jump waits for
//! it. A fresh dump of the routes follows, because the kernel drops routes without saying so when a link goes down.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use futures_util::{FutureExt as _, Stream};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteMessage;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::warn;

use super::table::{Route, Table, route};

/// Pause before a broken netlink connection is opened again: long enough not to spin, short against any timer here.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Why links cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}; the kernel needs CONFIG_NET and a sandbox must allow AF_NETLINK")]
    Socket(#[from] io::Error),
    /// A request failed.
    #[error("cannot read links, addresses and routes: {0}")]
    Dump(#[from] rtnetlink::Error),
}

/// Watches the kernel's tables in a task of its own. Dropping it ends the task.
#[derive(Debug)]
pub struct Watcher {
    tables: watch::Receiver<Arc<Table>>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Opens the connection and reads everything once.
    pub async fn start() -> Result<Self, WatchError> {
        let connection = Connection::open().await?;
        let (sender, tables) = watch::channel(Arc::new(connection.table.clone()));
        Ok(Self { tables, task: tokio::spawn(keep_watching(connection, sender)) })
    }

    /// The newest table.
    pub fn table(&self) -> Arc<Table> {
        self.tables.borrow().clone()
    }

    /// Waits for the next change and returns the table then.
    pub async fn changed(&mut self) -> Arc<Table> {
        if self.tables.changed().await.is_err() {
            // The task only ends with this value; should it ever panic, nothing changes any more.
            std::future::pending::<()>().await;
        }
        self.tables.borrow_and_update().clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Messages = std::pin::Pin<Box<dyn Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)> + Send>>;

/// A netlink connection with the table as it stood when it was opened.
struct Connection {
    handle: Handle,
    messages: Messages,
    driver: JoinHandle<()>,
    table: Table,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Subscribes first and dumps then, so that no change falls between.
    async fn open() -> Result<Self, WatchError> {
        let (driver, handle, messages) = new_multicast_connection(&GROUPS)?;
        let driver = tokio::spawn(driver);
        let mut connection = Self { handle, messages: Box::pin(messages), driver, table: Table::default() };
        connection.dump().await?;
        Ok(connection)
    }

    async fn dump(&mut self) -> Result<(), WatchError> {
        let mut links = self.handle.link().get().execute();
        while let Some(link) = links.try_next().await? {
            self.table.apply(&RouteNetlinkMessage::NewLink(link));
        }
        let mut addresses = std::pin::pin!(self.handle.address().get().execute());
        while let Some(address) = addresses.try_next().await? {
            self.table.apply(&RouteNetlinkMessage::NewAddress(address));
        }
        let routes = dump_routes(&self.handle).await?;
        self.table.replace_routes(routes);
        Ok(())
    }

    /// Applies the next event and all that already wait behind it; `None` when the connection is gone.
    async fn next_event(&mut self) -> Option<()> {
        let (message, _) = self.messages.next().await?;
        self.apply(&message);
        while let Some(Some((message, _))) = self.messages.next().now_or_never() {
            self.apply(&message);
        }
        Some(())
    }

    fn apply(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>) {
        if let NetlinkPayload::InnerMessage(inner) = &message.payload {
            self.table.apply(inner);
        }
    }
}

async fn keep_watching(mut connection: Connection, sender: watch::Sender<Arc<Table>>) {
    loop {
        while connection.next_event().await.is_some() {
            publish(&sender, &connection.table);
            match dump_routes(&connection.handle).await {
                Ok(routes) => connection.table.replace_routes(routes),
                Err(error) => warn!(%error, "cannot read the routes again"),
            }
            publish(&sender, &connection.table);
        }
        // The kernel drops a listener that is too slow for a burst; what was missed is in a fresh dump.
        connection = loop {
            tokio::time::sleep(REOPEN_PAUSE).await;
            match Connection::open().await {
                Ok(connection) => break connection,
                Err(error) => warn!(%error, "lost the kernel's events, trying again"),
            }
        };
        publish(&sender, &connection.table);
    }
}

fn publish(sender: &watch::Sender<Arc<Table>>, table: &Table) {
    sender.send_if_modified(|current| {
        let differs = **current != *table;
        if differs {
            *current = Arc::new(table.clone());
        }
        differs
    });
}

async fn dump_routes(handle: &Handle) -> Result<Vec<Route>, rtnetlink::Error> {
    let requests: [RouteMessage; 2] = [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ];
    let mut routes = Vec::new();
    for request in requests {
        let mut answers = std::pin::pin!(handle.route().get(request).execute());
        while let Some(message) = answers.try_next().await? {
            routes.extend(route(&message));
        }
    }
    Ok(routes)
}
