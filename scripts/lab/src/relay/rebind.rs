//! A NAT that forgets: every rebinding gives each UDP flow of the client a new public address and drops what still
//! arrives for the old one, without a word, as home routers do.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::frame::{Datagram, Field};

/// Ports given to rebound flows: the dynamic range of RFC 6335.
const PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// A flow as the side of the client knows it.
type Flow = (SocketAddr, SocketAddr);

/// The translation table of one path.
pub(crate) struct Rebinding {
    random: fastrand::Rng,
    /// How often the table was forgotten.
    generation: u32,
    /// The address that rebound flows get; their own one if there is none.
    address: Option<IpAddr>,
    /// Own and remote address of a flow -> its public address.
    public: HashMap<Flow, SocketAddr>,
    /// Public and remote address -> own address of the flow.
    own: HashMap<Flow, SocketAddr>,
}

impl Rebinding {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            generation: 0,
            address: None,
            public: HashMap::new(),
            own: HashMap::new(),
        }
    }

    /// How often the table was forgotten.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Forgets every mapping. Flows get new ports from here on, and that address if one is given.
    pub(crate) fn rebind(&mut self, address: Option<IpAddr>) {
        self.generation += 1;
        self.address = address;
        self.public.clear();
        self.own.clear();
    }

    /// Translates a frame on its way from the client.
    pub(crate) fn outward(&mut self, frame: &mut [u8]) {
        let Some(mut datagram) = Datagram::find(frame) else { return };
        if self.generation == 0 {
            return;
        }
        let flow = (datagram.source, datagram.destination);
        let public = match self.public.get(&flow) {
            Some(public) => *public,
            None => self.map(flow),
        };
        datagram.readdress(frame, Field::Source, public);
    }

    /// Translates a frame on its way to the client; false if it is for a mapping that was forgotten.
    pub(crate) fn inward(&mut self, frame: &mut [u8]) -> bool {
        let Some(mut datagram) = Datagram::find(frame) else { return true };
        if self.generation == 0 {
            return true;
        }
        let Some(own) = self.own.get(&(datagram.destination, datagram.source)) else {
            return false;
        };
        datagram.readdress(frame, Field::Destination, *own);
        true
    }

    fn map(&mut self, flow: Flow) -> SocketAddr {
        let (source, remote) = flow;
        let ip = self.address.filter(|ip| ip.is_ipv4() == source.is_ipv4()).unwrap_or(source.ip());
        let public = loop {
            let public = SocketAddr::new(ip, self.random.u16(PORTS));
            if public.port() != source.port() && !self.own.contains_key(&(public, remote)) {
                break public;
            }
        };
        self.public.insert(flow, public);
        self.own.insert((public, remote), source);
        public
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::build;
    use super::*;

    const SEED: u64 = 3;
    const TEMPLATE: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

    fn client() -> SocketAddr {
        "198.51.100.2:40000".parse().unwrap()
    }

    fn gateway() -> SocketAddr {
        "192.0.2.1:51900".parse().unwrap()
    }

    fn source_seen_by_the_gateway(nat: &mut Rebinding) -> SocketAddr {
        let mut frame = build(&TEMPLATE, client(), gateway(), b"x").unwrap();
        nat.outward(&mut frame);
        Datagram::find(&frame).unwrap().source
    }

    fn reaches_the_client(nat: &mut Rebinding, public: SocketAddr) -> bool {
        let mut frame = build(&TEMPLATE, gateway(), public, b"x").unwrap();
        nat.inward(&mut frame) && Datagram::find(&frame).unwrap().destination == client()
    }

    #[test]
    fn before_the_first_rebinding_nothing_is_touched() {
        let mut nat = Rebinding::new(SEED);
        assert_eq!(source_seen_by_the_gateway(&mut nat), client());
        assert!(reaches_the_client(&mut nat, client()));
    }

    #[test]
    fn a_rebinding_changes_the_port_and_forgets_the_old_mapping() {
        let mut nat = Rebinding::new(SEED);
        nat.rebind(None);
        assert!(!reaches_the_client(&mut nat, client()), "the first mapping is gone");
        let first = source_seen_by_the_gateway(&mut nat);
        assert_eq!(first.ip(), client().ip());
        assert_ne!(first.port(), client().port());
        assert_eq!(source_seen_by_the_gateway(&mut nat), first, "a mapping lasts until the next rebinding");
        assert!(reaches_the_client(&mut nat, first));
        nat.rebind(None);
        let second = source_seen_by_the_gateway(&mut nat);
        assert_ne!(second, first);
        assert!(reaches_the_client(&mut nat, second));
        assert!(!reaches_the_client(&mut nat, first));
    }

    #[test]
    fn a_rebinding_can_change_the_address_too() {
        let mut nat = Rebinding::new(SEED);
        nat.rebind(Some("198.51.100.77".parse().unwrap()));
        let public = source_seen_by_the_gateway(&mut nat);
        assert_eq!(public.ip().to_string(), "198.51.100.77");
        assert!(reaches_the_client(&mut nat, public));
    }

    #[test]
    fn what_is_not_udp_passes() {
        let mut nat = Rebinding::new(SEED);
        nat.rebind(None);
        let mut arp = [0; 60];
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        assert!(nat.inward(&mut arp));
    }
}
