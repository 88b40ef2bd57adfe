//! What a worker needs of the sessions that it drives.

use std::net::IpAddr;

use jumpgate_protocol::audit::{Disclosure, Record};
use jumpgate_protocol::gateway::{Inner, Meter, Outbound, Parcel, Part, PolicyChange, Reply, Title};
use jumpgate_protocol::ident::{Arrival, Locator, Slot};
use jumpgate_protocol::policy::Rate;
use jumpgate_protocol::reason::{Reason, ReasonCounters};
use jumpgate_protocol::time::Time;

/// The sessions of one worker, without a socket, a clock or a thread: the protocol's
/// [`Shard`](jumpgate_protocol::gateway::Shard), or the [bare forwarder](super::Bare) that bounds what a worker can do.
pub trait Sessions: Send + 'static {
    /// How a session is handed over.
    type Birth: Send;
    /// What happens to a session.
    type Event: Send;
    /// A session as the operator sees it.
    type View: Send;

    /// Takes over a session.
    fn birth(&mut self, now: Time, birth: Self::Birth);

    /// Opens a DATA packet in place: the inner packet that may go on, or why it is dropped (BD-1).
    fn data_in(&mut self, now: Time, arrival: &Arrival, packet: &mut [u8]) -> Result<Inner, Reason>;

    /// Seals, in place, a packet for the client with that inner index: `packet` has 20 bytes room, the inner packet and
    /// 16 bytes room. Gives where it goes, or why it is dropped (BD-2).
    fn data_out(&mut self, inner_index: u32, packet: &mut [u8]) -> Result<Outbound, Reason>;

    /// Takes in a control packet.
    fn control_in(&mut self, now: Time, arrival: &Arrival, packet: &mut [u8]) -> Result<(), Reason>;

    /// A peer is reached by another next hop from now on.
    fn set_route(&mut self, peer: IpAddr, route: u32);

    /// Does what is due.
    fn timeout(&mut self, now: Time);

    /// When something is due next.
    fn next_timeout(&self) -> Option<Time>;

    /// The next control packet to send.
    fn poll_reply(&mut self) -> Option<Reply>;

    /// The next thing that happened.
    fn poll_event(&mut self) -> Option<Self::Event>;

    /// The next audit record; none if none are kept.
    fn poll_record(&mut self) -> Option<Record>;

    /// Ends a session; false if it is unknown.
    fn terminate(&mut self, now: Time, locator: Locator, reason: Reason) -> bool;

    /// Another policy is in force; false if the session is unknown.
    fn change_policy(&mut self, now: Time, locator: Locator, change: PolicyChange) -> bool;

    /// The operator wants a session to move; false if it is unknown.
    fn force_move(&mut self, now: Time, locator: Locator, same_path_ok: bool) -> bool;

    /// Keeps audit records from now on, or, if it does already, discloses another amount in them.
    fn keep_records(&mut self, now: Time, disclosure: Disclosure);

    /// Most stateless resets a second from now on.
    fn set_resets(&mut self, resets: Rate);

    /// Ends every session.
    fn terminate_all(&mut self, now: Time, reason: Reason);

    /// Gives up a slot with all of its sessions; none if it is another's, or if there are no slots.
    fn release(&mut self, _: Time, _: Slot) -> Option<Parcel> {
        None
    }

    /// Takes over a slot with all of its sessions; `route` is the next hop towards a peer, if it is known.
    ///
    /// # Errors
    /// It is not this worker's by that title, or there are no slots: it comes back whole.
    fn adopt(&mut self, _: Time, parcel: Parcel, _: Title, _: &dyn Fn(IpAddr) -> Option<u32>) -> Result<(), Parcel> {
        Err(parcel)
    }

    /// All sessions, written down for the next run of the gateway.
    fn hand_over(&self) -> Part;

    /// All sessions as the operator sees them.
    fn views(&self, now: Time) -> Vec<Self::View>;

    /// Packets that were dropped, by reason.
    fn drops(&self) -> &ReasonCounters;

    /// What else was counted; nothing where nobody counts.
    fn meter(&self) -> Meter {
        Meter::default()
    }
}
