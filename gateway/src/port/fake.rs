//! Ports without devices: the test plays the kernel.

use std::fs::File;
use std::iter;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::homes::{Exchange, OwnFill, SPARE};
use super::lines::{Line, Receiver, Sender};
use super::{Homes, Kick, Role, WorkerPorts};
use crate::doorbell::Doorbell;
use crate::sys::fake::{FakeQueue, UserEnds, queue};
use crate::sys::{Statistics, Umem};

/// A socket that needs no kicking.
#[derive(Debug)]
pub struct FakeSocket(File);

impl AsFd for FakeSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Kick for FakeSocket {
    fn kick_transmit(&self) -> Result<(), Errno> {
        Ok(())
    }

    fn kick_receive(&self) {}

    fn statistics(&self) -> Statistics {
        Statistics::default()
    }
}

/// The kernel's ends of two ports.
#[derive(Debug)]
pub struct FakeKernel {
    outside: Vec<FakeQueue>,
    inside: Vec<FakeQueue>,
    frames: u32,
}

/// Two ports with as many queues as workers, `region` frames to a queue, `ring` entries to every other ring.
pub fn plane(workers: usize, region: u32, ring: u32) -> (Vec<WorkerPorts<FakeSocket>>, FakeKernel) {
    let frames = region * 2 * workers as u32;
    let (memory, all) = Umem::new(frames + (workers * SPARE) as u32, 2048).expect("anonymous memory");
    let mut frames_left = all.into_iter();
    let bells: Vec<_> = iter::repeat_with(|| Arc::new(Doorbell::new().expect("eventfd"))).take(workers).collect();
    let exchange = Arc::new(Exchange::new(bells.iter().cloned(), frames));
    let owners: Vec<usize> = (0..workers).chain(0..workers).collect();

    let mut queues = || -> (Vec<UserEnds>, Vec<FakeQueue>) {
        let one = || queue(&memory, workers, frames_left.by_ref().take(region as usize).collect(), ring);
        iter::repeat_with(one).take(workers).unzip()
    };
    let (mut outside_user, outside) = queues();
    let (mut inside_user, inside) = queues();
    // Last worker first: each takes the last receive ring of every queue.
    let mut shares: Vec<_> = bells
        .into_iter()
        .enumerate()
        .rev()
        .map(|(worker, bell)| {
            let (outside, outside_fill) = line(&mut outside_user, worker, Role::Outside, region);
            let (inside, inside_fill) = line(&mut inside_user, worker, Role::Inside, region);
            let homes = Homes::new(
                worker,
                region,
                &owners,
                vec![outside_fill, inside_fill],
                frames_left.by_ref().take(SPARE),
                exchange.clone(),
            );
            WorkerPorts { worker: worker as u16, outside, inside, homes, bell, memory: memory.clone() }
        })
        .collect();
    shares.reverse();
    (shares, FakeKernel { outside, inside, frames })
}

/// One worker's line of a port, and the fill ring of the queue that it owns.
fn line(queues: &mut [UserEnds], worker: usize, role: Role, region: u32) -> (Line<FakeSocket>, OwnFill) {
    let receivers = queues
        .iter_mut()
        .map(|queue| Receiver {
            socket: FakeSocket(File::open("/dev/null").expect("readable")),
            ring: queue.receive.pop().expect("a ring per worker"),
        })
        .collect();
    let (transmit, completion, fill) = queues[worker].own.take().expect("taken once");
    (Line { receivers, sender: Sender { ring: transmit, completion } }, OwnFill::new(role, worker as u32, fill, region))
}

impl FakeKernel {
    /// A packet arrives; false if there is no frame or no place for it.
    pub fn deliver(&mut self, role: Role, queue: usize, worker: usize, packet: &[u8]) -> bool {
        self.queues(role)[queue].deliver(worker, packet)
    }

    /// Sends at most `limit` packets of a queue and returns them.
    pub fn transmit(&mut self, role: Role, queue: usize, limit: usize) -> Vec<Vec<u8>> {
        self.queues(role)[queue].transmit(limit)
    }

    /// Shows the places of taken frames in the fill rings to be free, as the kernel does a moment late.
    pub fn catch_up(&mut self) {
        self.outside.iter_mut().chain(&mut self.inside).for_each(FakeQueue::catch_up);
    }

    /// Frames that lie ready in the fill ring of each queue.
    pub fn ready(&mut self) -> Vec<u32> {
        self.outside.iter_mut().chain(&mut self.inside).map(FakeQueue::unused).collect()
    }

    /// All frames that packets are received into.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    fn queues(&mut self, role: Role) -> &mut [FakeQueue] {
        match role {
            Role::Outside => &mut self.outside,
            Role::Inside => &mut self.inside,
        }
    }
}
