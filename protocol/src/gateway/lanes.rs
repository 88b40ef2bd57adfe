//! The lanes of a session's control messages (AR-1): what is fresh, what is a copy and gets the cached answer, what is a
//! replay; and how messages are opened and sealed.

use super::event::{CompromiseEvidence, Reply};
use super::session::Session;
use super::shard::Context;
use crate::ident::{Arrival, Tuple};
use crate::reason::Reason;
use crate::stored::stored;
use crate::wire::{Body, ControlPacket, Header};

/// What M lane remembers: the last message, from where it came, and its answer (AR-4, RS-6).
#[derive(Clone, Debug, Default)]
pub(super) struct LastMutation {
    pub(super) counter: u64,
    pub(super) digest: [u8; 16],
    pub(super) from: Option<Tuple>,
    /// As long as it is: a [`ControlPacket`] has room for every message, and this one stays.
    pub(super) answer: Option<Box<[u8]>>,
    /// The epoch that the answer grants; it is given again only as long as that binding is the active one.
    pub(super) granted: Option<u64>,
}

stored! { LastMutation { counter, digest, from, answer, granted } }

/// What a counter on lane M means (AR-1, AR-4).
pub(super) enum Mutation {
    /// Above the last one.
    Fresh,
    /// The same bytes from the same tuple: the cached answer again.
    Repeated,
}

impl Session {
    /// Judges the counter of a lane M message that is already authenticated (AR-1, AR-4).
    pub(super) fn mutation(
        &mut self,
        header: &Header,
        digest: [u8; 16],
        arrival: &Arrival,
        context: &mut Context<'_>,
    ) -> Result<Mutation, Reason> {
        if header.counter > self.last.counter {
            return Ok(Mutation::Fresh);
        }
        if header.counter < self.last.counter {
            return Err(Reason::ReplayDetected);
        }
        if digest != self.last.digest {
            // Two holders of one key: the same nonce under a valid tag, but other bytes.
            self.compromised(CompromiseEvidence::Clone, context);
            return Err(Reason::KeyCompromiseSuspected);
        }
        if self.last.from != Some(arrival.tuple) {
            return Err(Reason::ReplayDetected);
        }
        Ok(Mutation::Repeated)
    }

    /// A lane M message was used up, with that answer (RF-2).
    pub(super) fn remember(
        &mut self,
        header: &Header,
        digest: [u8; 16],
        arrival: &Arrival,
        answer: Option<ControlPacket>,
    ) {
        let answer = answer.map(|packet| packet.as_slice().into());
        self.last = LastMutation { counter: header.counter, digest, from: Some(arrival.tuple), answer, granted: None };
    }

    /// Sends the cached answer once more, as long as its result holds (RS-6). A copy validates nothing, and its answer
    /// is paid from the same budget (PV-2, PV-3).
    pub(super) fn answer_again(&mut self, arrival: &Arrival, context: &mut Context<'_>) -> Result<(), Reason> {
        let active = self.record.active().map(|binding| (binding.epoch, binding.tuple));
        if self.last.granted.is_some_and(|epoch| active != Some((epoch, arrival.tuple))) {
            return Err(Reason::ReplayDetected);
        }
        let answer = self.last.answer.as_deref().and_then(|answer| ControlPacket::try_from(answer).ok());
        let packet = answer.ok_or(Reason::ReplayDetected)?;
        self.reply(arrival, packet, context)?;
        context.outbox.counters.count(Reason::RetransmitAnswered);
        Ok(())
    }

    /// Opens a message under the proof key (C04).
    pub(super) fn open_proof<B: Body>(
        &mut self,
        header: &Header,
        packet: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<B, Reason> {
        let body = self.ring.open_proof(header, packet, context.now)?;
        self.heard_under(header.key_epoch, context);
        Ok(body)
    }

    pub(super) fn open_control<B: Body>(
        &mut self,
        header: &Header,
        packet: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<B, Reason> {
        let body = self.ring.open_control(header, packet, context.now)?;
        self.heard_under(header.key_epoch, context);
        Ok(body)
    }

    /// Opens a message of lane Q and takes its counter out of the window.
    pub(super) fn open_query<B: Body>(
        &mut self,
        header: &Header,
        packet: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<B, Reason> {
        if self.query_window.check(header.counter).is_err() {
            return Err(Reason::ReplayDetected);
        }
        let body = self.open_control(header, packet, context)?;
        self.query_window.mark(header.counter);
        Ok(body)
    }

    /// Seals one control message; its counter is never used again, whatever its type (AR-2, INV-36).
    pub(super) fn seal_control<B: Body>(&mut self, body: &B) -> ControlPacket {
        self.control_sent += 1;
        self.ring.seal_control(self.locator, self.control_sent, body)
    }

    /// Seals one message of lane M (AR-1): what was sealed on it before, the client will not take any more.
    pub(super) fn seal_mutation<B: Body>(&mut self, body: &B) -> ControlPacket {
        let packet = self.seal_control(body);
        self.mutation_sent = self.control_sent;
        packet
    }

    /// Answers to where a packet came from; to an unvalidated binding only within its budget (PV-2).
    pub(super) fn reply(
        &mut self,
        arrival: &Arrival,
        packet: ControlPacket,
        context: &mut Context<'_>,
    ) -> Result<(), Reason> {
        self.pay(&arrival.tuple, packet.len())?;
        // What comes first after a jump may be here before the worker heard of a next hop towards its address. The request
        // that made the binding knew it.
        let known = arrival.route != Arrival::NO_ROUTE || self.active_tuple() != Some(arrival.tuple);
        let route = if known { arrival.route } else { self.route };
        context.outbox.replies.push_back(Reply { tuple: arrival.tuple, route, packet });
        Ok(())
    }
}

/// The first 128 bits of the BLAKE3 hash of a packet as it came: what "byte-identical" means (AR-4).
pub(super) fn digest(packet: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(packet).as_bytes()[..16]);
    out
}
