//! The loop of `jump up`: it carries packets, time, link events and orders to the protocol core, and does what the core
//! decides. All decisions are the core's; all system calls are here.
//!
//! One thread, one loop: TUN, sockets, timers, netlink and orders are waited for together, and each turn does a bounded
//! batch of one of them. `data` moves packets, `session` follows the core's events, `view` answers orders.

mod data;
mod session;
mod view;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use jumpgate_metrics::{Endpoint, EndpointError};
use jumpgate_protocol::client::{Client, ClientConfig};
use jumpgate_protocol::crypto::StaticSecret;
use jumpgate_protocol::ident::TransportId;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep};
use tracing::{info, warn};

use self::data::DataPath;
use self::session::{Backoff, SessionLog};
use crate::audit::{Trace, TraceError};
use crate::config::{Config, ConfigError};
use crate::control::{Control, Order, Response, ServerError};
use crate::keys::{KeyError, SystemEntropy};
use crate::link::{RouteError, Routes, Table, WatchError, Watcher};
use crate::privilege::NotPrivileged;
use crate::report::{Event, EventLine, Phase};
use crate::signal::Signals;
use crate::state::{HelloCounter, StateError};
use crate::tun::{Tun, TunError};
use crate::uplinks::{Lost, Uplinks};
use crate::{clock, metrics, privilege, rp_filter};

/// Longest sleep. Timers of the loop run on a clock that stands still while the machine sleeps; so after waking up it
/// takes no longer than this until the core learns the true time.
const LONGEST_SLEEP: Span = Span::from_millis(500);

/// Why `jump up` cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is explained where its error is defined")]
pub enum DriverError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot take over the signals that end the program: {0}")]
    Signals(io::Error),
    #[error(transparent)]
    Privilege(#[from] NotPrivileged),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Control(#[from] ServerError),
    #[error("{0}; cure: {cure}", cure = .0.cure())]
    Metrics(#[from] EndpointError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error(transparent)]
    Tun(#[from] TunError),
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// Everything that `jump up` owns. What the kernel holds for it goes with it.
pub struct Driver {
    config: Config,
    client: Client,
    counter: HelloCounter,
    uplinks: Uplinks,
    data: DataPath,
    routes: Routes,
    watcher: Watcher,
    table: Arc<Table>,
    control: Control,
    /// Serves scrapers, if it may.
    scrapers: Option<JoinHandle<()>>,
    signals: Signals,
    /// The audit trace, if one is kept.
    trace: Option<Trace>,
    session: SessionLog,
    backoff: Backoff,
    phase: Phase,
    /// Who told us to stop; answered when it is done.
    told_to_stop: Vec<oneshot::Sender<Response>>,
    timer: Pin<Box<Sleep>>,
    timer_due: Time,
}

/// Serves scrapers if the configuration says where.
fn open_metrics(config: &Config, control: &Control) -> Result<Option<JoinHandle<()>>, EndpointError> {
    let Some(address) = config.metrics.listen else { return Ok(None) };
    let endpoint = Endpoint::open(address)?;
    info!(%address, "metrics at http://{address}/metrics");
    if !address.ip().is_loopback() {
        warn!(%address, "whoever can reach this address can read the metrics: there is no password and no TLS");
    }
    let orders = control.orders();
    Ok(Some(tokio::spawn(endpoint.serve(move || metrics::scrape(orders.clone())))))
}

/// What ended a wait.
enum Wake {
    Tun,
    Path(TransportId),
    Unblocked,
    Timer,
    Links(Arc<Table>),
    Order(Order),
    Signal(&'static str),
}

impl Driver {
    /// Opens everything that must be there from the start. Nothing is left behind if any of it fails.
    pub async fn open(config: Config) -> Result<Self, DriverError> {
        privilege::check()?;
        let secrets = config.secrets()?;
        let counter = HelloCounter::open(&config.client.state_dir)?;
        let signals = Signals::install().map_err(DriverError::Signals)?;
        let control = Control::listen(&config.client.control_socket)?;
        let scrapers = open_metrics(&config, &control)?;
        let watcher = Watcher::start().await?;
        let table = watcher.table();
        let name = &config.client.interface;
        if table.link(name).is_some() {
            return Err(TunError::Taken { name: name.clone() }.into());
        }
        let tun = Tun::open(name)?;
        let routes = Routes::open()?;
        let uplinks = Uplinks::new(config.paths());
        let secret = StaticSecret::new(*secrets.private_key);
        let trace = Trace::open(&config, &secret.public())?;
        let mut client = Client::new(
            ClientConfig {
                secret,
                gateway: config.gateway.public_key,
                psk: secrets.psk.map(|psk| *psk),
                requested_policy: config.requested_policy.clone(),
                hello_counter: counter.floor(),
                replaces: None,
            },
            Box::new(SystemEntropy),
        );
        if trace.is_some() {
            client.keep_records(clock::now());
        }
        for uplink in &config.uplinks {
            rp_filter::warn_if_strict(uplink.interface.get_ref());
        }
        Ok(Self {
            data: DataPath::new(tun),
            session: SessionLog::default(),
            backoff: Backoff::default(),
            phase: Phase::Connecting,
            told_to_stop: Vec::new(),
            timer: Box::pin(sleep(Duration::ZERO)),
            timer_due: Time::ZERO,
            config,
            client,
            counter,
            uplinks,
            routes,
            watcher,
            table,
            control,
            scrapers,
            signals,
            trace,
        })
    }

    /// Runs until a signal or an order ends it, or something fails that cannot be waited out. Leaves nothing behind.
    pub async fn run(mut self) -> Result<(), DriverError> {
        let result = self.serve().await;
        self.stop().await;
        result
    }

    async fn serve(&mut self) -> Result<(), DriverError> {
        let table = self.table.clone();
        self.links_changed(table).await?;
        while self.phase != Phase::Stopping {
            match self.wait().await {
                Wake::Tun => {
                    self.data.send_from_tun(&mut self.client, &self.uplinks);
                    if self.data.tun_is_removed() {
                        return Err(TunError::Removed { name: self.config.client.interface.clone() }.into());
                    }
                }
                Wake::Path(id) => {
                    if self.data.receive(id, &mut self.client, &self.uplinks) {
                        self.uplinks.heard(id);
                    }
                }
                Wake::Unblocked => self.data.unblock(&self.uplinks),
                Wake::Timer => self.timer_fired().await?,
                Wake::Links(table) => self.links_changed(table).await?,
                Wake::Order(order) => self.obey(order),
                Wake::Signal(name) => {
                    info!(signal = name, "stopping; a second signal exits at once");
                    self.phase = Phase::Stopping;
                }
            }
            self.settle().await?;
        }
        Ok(())
    }

    /// Waits for whatever comes first.
    async fn wait(&mut self) -> Wake {
        self.arm_timer();
        let blocked = self.data.blocked();
        let uplinks = &self.uplinks;
        let readable = std::future::poll_fn(|context| uplinks.poll_readable(context));
        let writable = std::future::poll_fn(|context| match blocked {
            Some(path) => uplinks.poll_writable(path, context),
            None => Poll::Pending,
        });
        tokio::select! {
            // While a socket is full, packets wait in the TUN, where the senders notice.
            () = self.data.tun_readable(), if blocked.is_none() => Wake::Tun,
            path = readable => Wake::Path(path),
            () = writable, if blocked.is_some() => Wake::Unblocked,
            () = self.timer.as_mut() => Wake::Timer,
            table = self.watcher.changed() => Wake::Links(table),
            order = self.control.next_order() => Wake::Order(order),
            name = self.signals.next() => Wake::Signal(name),
        }
    }

    /// Sets the timer to the next thing that is due. Most turns move no deadline, and then nothing is done.
    fn arm_timer(&mut self) {
        let now = clock::now();
        let due = [
            self.client.next_timeout(now),
            self.uplinks.next_retry(),
            self.backoff.due().filter(|_| self.client.is_idle() && self.any_path_up()),
            Some(now + LONGEST_SLEEP),
        ];
        let due = due.into_iter().flatten().min().unwrap_or(now);
        let is_fine = self.timer_due <= due && self.timer_due > now;
        if !is_fine {
            self.timer_due = due;
            self.timer.as_mut().reset(Instant::now() + Duration::from_micros(due.since(now).as_micros()));
        }
    }

    async fn timer_fired(&mut self) -> Result<(), DriverError> {
        let now = clock::now();
        self.timer_due = Time::ZERO;
        self.client.timeout(now);
        if self.uplinks.next_retry().is_some_and(|retry| now >= retry) {
            self.open_paths(now);
        }
        Ok(())
    }

    /// The kernel's tables changed. Losses first, and sent to the gateway before anything else is done: the jump waits
    /// for them.
    async fn links_changed(&mut self, table: Arc<Table>) -> Result<(), DriverError> {
        self.table = table;
        for lost in self.uplinks.lose(&self.table) {
            self.path_lost(&lost);
        }
        self.transmit();
        let covered = |address| self.config.tunnel_covers(address);
        let pins = self.uplinks.pins(&self.table, covered);
        self.routes.set_pins(&self.table, &self.uplinks.destinations(), pins).await;
        self.open_paths(clock::now());
        self.follow_mtu().await
    }

    fn open_paths(&mut self, now: Time) {
        for id in self.uplinks.gain(&self.table, now) {
            let Some(uplink) = self.uplinks.get(id) else { continue };
            let Some(local) = uplink.local() else { continue };
            let (interface, gateway) = (uplink.spec.interface.clone(), uplink.spec.endpoint);
            info!(%interface, %local, %gateway, "path up");
            self.client.path_up(now, id, uplink.info());
            self.publish(Event::PathUp { path: id.0, interface, local, gateway });
        }
    }

    fn path_lost(&mut self, lost: &Lost) {
        let interface = self.uplinks.interface(lost.id).to_owned();
        info!(%interface, cause = %lost.cause, "path down");
        self.client.path_down(clock::now(), lost.id, lost.evidence);
        self.publish(Event::PathDown { path: lost.id.0, interface, cause: lost.cause.clone() });
    }

    fn any_path_up(&self) -> bool {
        self.uplinks.iter().any(crate::uplinks::Uplink::is_up)
    }

    /// What every turn ends with: the core's datagrams go out, paths that failed are reported, its events are followed,
    /// and a handshake begins if one is due.
    async fn settle(&mut self) -> Result<(), DriverError> {
        self.transmit();
        while let Some(event) = self.client.poll_event() {
            self.follow(event).await?;
        }
        self.connect_if_due();
        self.transmit();
        self.record();
        Ok(())
    }

    /// Publishes what the core has recorded. Nothing depends on what becomes of it (INV-23).
    fn record(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.take(clock::now(), &mut self.client);
        }
    }

    /// Sends what the core wants sent. A path on which the kernel refuses is lost; what the core wants then goes out as
    /// well.
    fn transmit(&mut self) {
        loop {
            // A hello counter is on disk before it is on the wire (HS-3).
            if let Err(error) = self.counter.record(self.client.hello_counter()) {
                warn!(%error, "the handshake counter is not kept");
            }
            while let Some(transmit) = self.client.poll_transmit() {
                self.data.send_control(&transmit, &self.uplinks);
            }
            let Some((id, errno)) = self.data.take_failure() else { return };
            if let Some(lost) = self.uplinks.fail(id, errno, clock::now()) {
                self.path_lost(&lost);
            }
        }
    }

    fn publish(&self, event: Event) {
        self.control.publish(&EventLine::now(event));
    }

    /// Ends the session and takes everything out of the kernel again. The first step tells the gateway; the rest takes
    /// milliseconds and waits for nobody.
    async fn stop(mut self) {
        self.client.terminate(clock::now(), Reason::OperatorTerminated);
        self.transmit();
        while let Some(event) = self.client.poll_event() {
            self.log_event(&event);
        }
        self.record();
        self.routes.remove_pins().await;
        self.signals.nothing_left_behind();
        let Self { control, scrapers, data, told_to_stop, trace, .. } = self;
        scrapers.inspect(|scrapers| scrapers.abort());
        // The TUN goes, and with it its addresses and routes.
        drop(data);
        if let Some(trace) = trace {
            trace.stop();
        }
        for answer in told_to_stop {
            let _ = answer.send(Response::Done);
        }
        control.close().await;
    }
}
