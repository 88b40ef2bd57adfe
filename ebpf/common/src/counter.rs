//! What the XDP programs count: one counter for each way that a frame can take, so that their sum is what came in.

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Redirected to a worker's AF_XDP socket.
    Steered,
    /// Left to the kernel, untouched.
    Passed,
    /// Gone.
    Dropped,
}

macro_rules! counters {
    ($($name:ident $text:literal $fate:ident $meaning:literal,)+) => {
        /// Index into the counter map, one for each reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Counter {
            $(#[doc = $meaning] $name,)+
        }

        impl Counter {
            /// Every counter, in the order of the map.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable name, as in logs and metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// What it counts, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)+
                }
            }

            /// What becomes of the frames that it counts.
            pub const fn fate(self) -> Fate {
                match self {
                    $(Self::$name => Fate::$fate,)+
                }
            }
        }
    };
}

counters! {
    OutsideSteered "outside_steered" Steered "DATA or HEARTBEAT given to a worker",
    OutsideControl "outside_control" Passed "other message to our address and port, left to the slow path's socket",
    OutsideOther "outside_other" Passed "not UDP, or not to our port",
    OutsideOtherAddress "outside_other_address" Passed "to our port number, but not to an address of ours",
    OutsideFragment "outside_fragment" Dropped "first fragment of a datagram to our port; tunnel packets are never fragmented",
    OutsideTruncated "outside_truncated" Dropped "to our port, but the frame ends before the IP packet does",
    OutsideMalformed "outside_malformed" Dropped "to our port, but lengths contradict or are too small for the message",
    OutsideBadVersion "outside_bad_version" Dropped "DATA or HEARTBEAT of a protocol version not spoken here",
    OutsideUnknownSlot "outside_unknown_slot" Dropped "the slot of the session id has no worker on this machine",
    OutsideNoWorker "outside_no_worker" Dropped "the worker has no socket on the queue that the packet came in by",
    InsideSteered "inside_steered" Steered "packet for a client, given to its worker",
    InsideOther "inside_other" Passed "not for the client pool: the host's own traffic, ARP, neighbour discovery",
    InsideTruncated "inside_truncated" Dropped "for the client pool, but the frame ends before the IP packet does",
    InsideMalformed "inside_malformed" Dropped "for the client pool, but shorter than its own header",
    InsideUnassigned "inside_unassigned" Dropped "address of the client pool that no session has",
    InsideNoWorker "inside_no_worker" Dropped "the worker has no socket on the queue that the packet came in by",
}

impl Counter {
    /// Number of counters: entries of the map.
    pub const COUNT: usize = Self::ALL.len();
}
