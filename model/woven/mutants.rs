/// Every mutant. Each takes one check away, or does one thing too much.
pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "no-epoch-check",
        does: "C07: a request that names an older epoch passes",
        file: "gateway/reattach.rs",
        find: "if request.binding_epoch < self.record.epoch() {",
        replace: "if !MUTANT && request.binding_epoch < self.record.epoch() {",
    },
    Mutant {
        name: "no-replay-check",
        does: "C05: a nonce that was used is fresh",
        file: "gateway/lanes.rs",
        find: "if header.counter > self.last.counter {",
        replace: "if MUTANT || header.counter > self.last.counter {",
    },
    Mutant {
        name: "copy-from-anywhere",
        does: "RS-6: the same bytes from another tuple are answered as a copy",
        file: "gateway/lanes.rs",
        find: "if self.last.from != Some(arrival.tuple) {",
        replace: "if !MUTANT && self.last.from != Some(arrival.tuple) {",
    },
    Mutant {
        name: "no-query-window",
        does: "AR-1: a heartbeat or probe is taken again",
        file: "gateway/lanes.rs",
        find: "if self.query_window.check(header.counter).is_err() {",
        replace: "if !MUTANT && self.query_window.check(header.counter).is_err() {",
    },
    Mutant {
        name: "no-proof",
        does: "C04: whoever knows the locator is believed, whatever the tag",
        file: "crypto.rs",
        find: "opened.map(|()| ciphertext.len()).map_err(|_| AuthError)",
        replace: "opened.map(|()| ciphertext.len()).or(if MUTANT { Ok(ciphertext.len()) } else { Err(AuthError) })",
    },
    Mutant {
        name: "data-moves",
        does: "DATA from another tuple binds the session there, as roaming in WireGuard",
        file: "gateway/session.rs",
        find: "let on_active = self.accept_tuple(header.tag, &arrival.tuple, now)?;",
        replace: "let on_active = match self.accept_tuple(header.tag, &arrival.tuple, now) {
            Err(Reason::WrongTransport) if MUTANT => {
                let transport = crate::ident::TransportId(1);
                let binding = crate::machine::NewBinding { tuple: arrival.tuple, transport, validated: true };
                if let Ok(links) = crate::machine::reattach(&mut self.record, binding, &self.policy, now) {
                    self.after_all(&links, context);
                }
                true
            }
            accepted => accepted?,
        };",
    },
    Mutant {
        name: "any-tuple",
        does: "BD-1: DATA is taken from any tuple",
        file: "gateway/session.rs",
        find: "None => Err(Reason::WrongTransport),",
        replace: "None => if MUTANT { Ok(false) } else { Err(Reason::WrongTransport) },",
    },
    Mutant {
        name: "old-binding-stays",
        does: "the retiring binding never ends",
        file: "machine/record.rs",
        find: "self.retiring.as_ref().filter(|retiring| now < retiring.until)",
        replace: "self.retiring.as_ref().filter(|retiring| MUTANT || now < retiring.until)",
    },
    Mutant {
        name: "unvalidated-retires",
        does: "PV-5: an unvalidated binding becomes retiring",
        file: "machine/step.rs",
        find: ".filter(|old| old.validated && drain > Span::ZERO)",
        replace: ".filter(|old| (MUTANT || old.validated) && drain > Span::ZERO)",
    },
    Mutant {
        name: "born-validated",
        does: "PV-1: every commit starts validated, so that PV-2 never binds",
        file: "gateway/reattach.rs",
        find: "let validated = self.standby.is_validated(request.transport_id, &arrival.tuple)",
        replace: "let validated = MUTANT || self.standby.is_validated(request.transport_id, &arrival.tuple)",
    },
    Mutant {
        name: "no-amplification-limit",
        does: "PV-2: replies to an unvalidated binding cost nothing",
        file: "gateway/session.rs",
        find: "if !binding.validated {\n            self.credit",
        replace: "if !MUTANT && !binding.validated {\n            self.credit",
    },
    Mutant {
        name: "never-unvalidated-death",
        does: "PV-4: a binding that nobody validates lives on",
        file: "machine/record.rs",
        find: ".filter(|binding| !binding.validated).filter(late)",
        replace: ".filter(|binding| !MUTANT && !binding.validated).filter(late)",
    },
    Mutant {
        name: "no-cooldown",
        does: "C08: the gateway forgets the cooldown",
        file: "gateway/reattach.rs",
        find: "if !exempt && cooldown > Span::ZERO {",
        replace: "if !MUTANT && !exempt && cooldown > Span::ZERO {",
    },
    Mutant {
        name: "no-switch-rate",
        does: "INV-15: commits beyond the limit of the minute",
        file: "machine/record.rs",
        find: "self.commits_in_window(now) < usize::from(policy.switching.max_switches_per_min)",
        replace: "MUTANT || self.commits_in_window(now) < usize::from(policy.switching.max_switches_per_min)",
    },
    Mutant {
        name: "epoch-stands-still",
        does: "INV-06: a commit keeps the epoch",
        file: "machine/step.rs",
        find: "record.epoch + 1\n                }",
        replace: "record.epoch + u64::from(!MUTANT)\n                }",
    },
    Mutant {
        name: "half-a-commit",
        does: "INV-13: the links before the commit stay although the commit is refused",
        file: "machine/run.rs",
        find: "        draft = after;\n",
        replace: "        draft = after;\n        if MUTANT { *record = draft.clone(); }\n",
    },
    Mutant {
        name: "old-generation-kills",
        does: "INV-32: evidence about an older binding takes the present one",
        file: "machine/step.rs",
        find: "record.active.is_some_and(|binding| binding.epoch == generation)",
        replace: "record.active.is_some_and(|binding| MUTANT || binding.epoch == generation)",
    },
    Mutant {
        name: "no-transport-limit",
        does: "T18: nobody notices that the session has no transport",
        file: "machine/run.rs",
        find: "inputs.push(Input::TransportTtl);",
        replace: "if !MUTANT { inputs.push(Input::TransportTtl); }",
    },
    Mutant {
        name: "no-recovery-deadline",
        does: "T12: RECOVERING has no end",
        file: "machine/step.rs",
        find: "guard(now >= record.deadline)?;",
        replace: "guard(!MUTANT && now >= record.deadline)?;",
    },
    Mutant {
        name: "death-terminates",
        does: "INV-19: a session ends with its transport",
        file: "gateway/session.rs",
        find: "self.last_reason = Some(transition.reason);",
        replace: "self.last_reason = Some(transition.reason);
        if MUTANT && transition.to == State::Volatile && transition.active.is_none() {
            self.apply(&[Input::OperatorTerminate], context);
        }",
    },
    Mutant {
        name: "version-stands-still",
        does: "INV-05: a transition without a version",
        file: "machine/step.rs",
        find: "self.record.version += 1;",
        replace: "self.record.version += u64::from(!MUTANT || id != TransitionId::T16);",
    },
    Mutant {
        name: "epoch-never-learned",
        does: "RS-7: the client does not take the epoch that a refusal names",
        file: "client/recovery.rs",
        find: "self.known_epoch = self.known_epoch.max(epoch);\n                    self.named",
        replace: "if !MUTANT { self.known_epoch = self.known_epoch.max(epoch); }\n                    self.named",
    },
    Mutant {
        name: "answer-to-any-nonce",
        does: "lane R: the client takes a REATTACH_ACK for another request",
        file: "client/recovery.rs",
        find: "self.attempt.as_ref().filter(|attempt| attempt.nonce == ack.nonce) else {",
        replace: "self.attempt.as_ref().filter(|attempt| MUTANT || attempt.nonce == ack.nonce) else {",
    },
    Mutant {
        name: "answer-on-any-path",
        does: "RS-4: the client takes a REATTACH_ACK on another path (a defect that this model found)",
        file: "client/recovery.rs",
        find: "if from != path {",
        replace: "if !MUTANT && from != path {",
    },
    Mutant {
        name: "bound-by-tuple-alone",
        does: "SM-09: a request for another path is ALREADY_BOUND (a defect that this model found)",
        file: "gateway/reattach.rs",
        find: "let same_path = same_tuple && active.is_some_and(|binding| binding.transport == request.transport_id);",
        replace: "let same_path = same_tuple && (MUTANT || active.is_some_and(|binding| binding.transport == request.transport_id));",
    },
    Mutant {
        name: "nonce-twice",
        does: "INV-36: a reply takes the counter of the one before",
        file: "gateway/lanes.rs",
        find: "self.control_sent += 1;",
        replace: "self.control_sent += u64::from(!MUTANT || self.control_sent < 3);",
    },
    Mutant {
        name: "no-confirmation",
        does: "HS-5: HELLO_CONFIRM is taken from any tuple",
        file: "gateway/control.rs",
        find: "if arrival.tuple != opening.from {",
        replace: "if !MUTANT && arrival.tuple != opening.from {",
    },
];
