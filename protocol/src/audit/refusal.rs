//! Which security record a refusal becomes.

use super::journal::{Context, Refused};
use super::value::{LimitAction, LimitScope, Plane, Violation};
use super::{Event, EventType, Outer, millis};
use crate::reason::Reason;
use crate::time::Span;
use crate::wire::MessageType;

/// Primary reason and detail.
type Reasons = (Option<Reason>, Option<Reason>);

/// Whether a refusal or drop is of interest to security. What this end itself could not carry is counted only.
pub(super) const fn is_of_security(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::NoActiveBinding
            | Reason::AmplificationLimit
            | Reason::MtuExceeded
            | Reason::QueueFull
            | Reason::CounterLimitReached
            // These have audit records of their own.
            | Reason::KeyCompromiseSuspected
            | Reason::RekeyDenied
            | Reason::StaleStateVersion
            | Reason::FutureStateVersion
            | Reason::CooldownActive
            | Reason::SwitchRateLimited
    )
}

/// The type of that record.
pub(super) const fn event_type(reason: Reason) -> EventType {
    match reason {
        Reason::ReplayDetected | Reason::DataReplay | Reason::DataTooOld => EventType::SecurityReplayDetected,
        Reason::RateLimited => EventType::RateLimitEvent,
        _ => EventType::SecurityValidationFailed,
    }
}

/// The record of a refusal.
pub(super) fn event(refused: &Refused, context: Option<&Context>, peer: Outer) -> (Reasons, Event) {
    let &Refused { reason, message, marker, limit, .. } = refused;
    let transport = context.and_then(|context| context.transport);
    match reason {
        Reason::ReplayDetected | Reason::DataReplay | Reason::DataTooOld => {
            let plane = if message == Some(MessageType::Data) { Plane::Data } else { Plane::Control };
            let event = Event::SecurityReplayDetected { plane, marker, transport, peer };
            ((Some(Reason::SecReplayAttempt), Some(reason)), event)
        }
        Reason::RateLimited => {
            let (scope, retry_after) = limit.unwrap_or((LimitScope::Source, Span::ZERO));
            let retry_after_ms = millis(retry_after);
            let event = Event::RateLimitEvent { action: LimitAction::Engaged, scope, retry_after_ms, peer: Some(peer) };
            ((Some(reason), None), event)
        }
        _ => {
            let violation_type = violation(reason);
            let event = Event::SecurityValidationFailed { violation_type, message_type: message, transport, peer };
            let reasons = match reason {
                Reason::WrongTransport => (Some(Reason::UnauthorizedTransportAttempt), Some(reason)),
                _ => (Some(reason), None),
            };
            (reasons, event)
        }
    }
}

const fn violation(reason: Reason) -> Violation {
    match reason {
        Reason::Malformed | Reason::UnknownType | Reason::UnsupportedVersion => Violation::Malformed,
        Reason::SessionNotFound => Violation::UnknownSession,
        Reason::AuthFail | Reason::DataAuthFail | Reason::KeyEpochUnknown => Violation::Authentication,
        Reason::FreshnessInvalid => Violation::Freshness,
        Reason::DataStaleEpoch | Reason::DataFutureEpoch => Violation::Epoch,
        Reason::WrongTransport | Reason::InvalidTransportCandidate | Reason::DualBindForbidden => Violation::Binding,
        Reason::InnerSourceInvalid | Reason::PeerToPeerDenied => Violation::Inner,
        Reason::CookieRequired
        | Reason::CookieInvalid
        | Reason::HelloReplayed
        | Reason::PeerUnknown
        | Reason::SuiteUnsupported
        | Reason::SecSessionFixationAttempt => Violation::Handshake,
        Reason::CapacityExceeded | Reason::PolicyDenied | Reason::PolicyInvalid => Violation::Policy,
        Reason::InternalError => Violation::Internal,
        _ => Violation::State,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Policy, Profile};

    #[test]
    fn ob05_what_is_left_out_is_counted_under_the_type_that_it_would_have_had() {
        let peer = std::net::SocketAddr::from(([192, 0, 2, 1], 1));
        let outer = super::super::Disclosure::new(&[0; 32], &Policy::profile(Profile::Default), 1).outer(peer);
        for reason in Reason::ALL.iter().copied().filter(|reason| is_of_security(*reason)) {
            let (_, event) = event(&Refused { reason, message: None, marker: 0, peer, limit: None }, None, outer);
            assert_eq!(event.event_type(), event_type(reason), "{reason}");
        }
    }
}
