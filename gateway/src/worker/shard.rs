//! The protocol's shard is what a worker drives in earnest.

use std::net::IpAddr;

use jumpgate_protocol::audit::{Disclosure, Record};
use jumpgate_protocol::gateway::{
    Birth, Inner, Meter, Outbound, Parcel, Part, PolicyChange, Reply, SessionEvent, SessionView, Shard, Title,
};
use jumpgate_protocol::ident::{Arrival, Locator, Slot};
use jumpgate_protocol::policy::Rate;
use jumpgate_protocol::reason::{Reason, ReasonCounters};
use jumpgate_protocol::time::Time;

use super::Sessions;

impl Sessions for Shard {
    type Birth = Birth;
    type Event = SessionEvent;
    type View = SessionView;

    fn birth(&mut self, now: Time, birth: Birth) {
        Self::birth(self, now, birth);
    }

    fn data_in(&mut self, now: Time, arrival: &Arrival, packet: &mut [u8]) -> Result<Inner, Reason> {
        Self::data_in(self, now, arrival, packet)
    }

    fn data_out(&mut self, inner_index: u32, packet: &mut [u8]) -> Result<Outbound, Reason> {
        Self::data_out(self, inner_index, packet)
    }

    fn control_in(&mut self, now: Time, arrival: &Arrival, packet: &mut [u8]) -> Result<(), Reason> {
        Self::control_in(self, now, arrival, packet)
    }

    fn set_route(&mut self, peer: IpAddr, route: u32) {
        Self::set_route(self, peer, route);
    }

    fn timeout(&mut self, now: Time) {
        Self::timeout(self, now);
    }

    fn next_timeout(&self) -> Option<Time> {
        Self::next_timeout(self)
    }

    fn poll_reply(&mut self) -> Option<Reply> {
        Self::poll_reply(self)
    }

    fn poll_event(&mut self) -> Option<SessionEvent> {
        Self::poll_event(self)
    }

    fn poll_record(&mut self) -> Option<Record> {
        Self::poll_record(self)
    }

    fn terminate(&mut self, now: Time, locator: Locator, reason: Reason) -> bool {
        Self::terminate(self, now, locator, reason)
    }

    fn change_policy(&mut self, now: Time, locator: Locator, change: PolicyChange) -> bool {
        Self::change_policy(self, now, locator, change)
    }

    fn force_move(&mut self, now: Time, locator: Locator, same_path_ok: bool) -> bool {
        Self::force_move(self, now, locator, same_path_ok)
    }

    fn keep_records(&mut self, now: Time, disclosure: Disclosure) {
        Self::keep_records(self, now, disclosure);
    }

    fn set_resets(&mut self, resets: Rate) {
        Self::set_resets(self, resets);
    }

    fn terminate_all(&mut self, now: Time, reason: Reason) {
        Self::terminate_all(self, now, reason);
    }

    fn release(&mut self, now: Time, slot: Slot) -> Option<Parcel> {
        Self::release(self, now, slot)
    }

    fn adopt(
        &mut self,
        now: Time,
        parcel: Parcel,
        title: Title,
        route: &dyn Fn(IpAddr) -> Option<u32>,
    ) -> Result<(), Parcel> {
        Self::adopt(self, now, parcel, title, route)
    }

    fn hand_over(&self) -> Part {
        Self::hand_over(self)
    }

    fn views(&self, now: Time) -> Vec<SessionView> {
        Self::views(self, now)
    }

    fn drops(&self) -> &ReasonCounters {
        self.counters()
    }

    fn meter(&self) -> Meter {
        Self::meter(self)
    }
}
