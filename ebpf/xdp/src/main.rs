//! The XDP programs of the outside and the inside port: a thin shell around the decisions of `jumpgate-common`.
//!
//! Each program asks [`steer`] for a verdict, counts it, and carries it out. A steered frame goes to the AF_XDP socket at
//! `queue * workers + worker`, because the kernel delivers a redirect only to a socket of the very queue that the frame
//! came in by.
//!
//! If that entry is empty (a worker that is not up yet, or whose process died), the frame is **dropped** and counted:
//! the redirect's fallback action is XDP_DROP, not XDP_PASS. Passed on, sealed DATA would flood the slow path's socket,
//! and packets for clients would be routed back out in the clear. What is not ours never comes that far and passes.
//!
//! The programs are `xdp.frags`: without it a native veth refuses a peer MTU above 3506. Headers are always in the first
//! buffer; only the length is taken over all buffers.
#![no_std]
#![no_main]

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;
use jumpgate_common::steer::{InsideTables, OutsideTables};
use jumpgate_common::{Address, Counter, Frame, InsideConfig, NO_WORKER, OutsideConfig, Verdict, maps, steer};

#[map]
static OUTSIDE_CONFIG: Array<[u32; OutsideConfig::WORDS]> = Array::with_max_entries(1, 0);
#[map]
static SLOTS: Array<u32> = Array::with_max_entries(maps::SLOT_COUNT, 0);
#[map]
static LOCAL_ADDRESSES: HashMap<[u8; 16], u8> = HashMap::with_max_entries(maps::LOCAL_ADDRESSES_MAX, 0);
#[map]
static OUTSIDE_XSKS: XskMap = XskMap::with_max_entries(maps::XSKS_DEFAULT, 0);
#[map]
static INSIDE_CONFIG: Array<[u32; InsideConfig::WORDS]> = Array::with_max_entries(1, 0);
#[map]
static POOL: Array<u32> = Array::with_max_entries(maps::POOL_DEFAULT, 0);
#[map]
static INSIDE_XSKS: XskMap = XskMap::with_max_entries(maps::XSKS_DEFAULT, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT as u32, 0);

/// No helper used here is restricted to GPL programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

/// Steers tunnel packets to workers.
#[xdp(frags)]
pub fn jumpgate_out(context: XdpContext) -> u32 {
    match steer::outside(&Packet::of(&context), &Tables) {
        Verdict::Steer(worker) => {
            let workers = OutsideTables::config(&Tables).workers;
            let entry = context.rx_queue_index().wrapping_mul(workers).wrapping_add(worker);
            let steered = OUTSIDE_XSKS.redirect(entry, XDP_DROP.into()).is_ok();
            finish_redirect(steered, Counter::OutsideSteered, Counter::OutsideNoWorker)
        }
        Verdict::Pass(reason) => finish(XDP_PASS, reason),
        Verdict::Drop(reason) => finish(XDP_DROP, reason),
    }
}

/// Steers packets for clients to workers.
#[xdp(frags)]
pub fn jumpgate_in(context: XdpContext) -> u32 {
    match steer::inside(&Packet::of(&context), &Tables) {
        Verdict::Steer(worker) => {
            let workers = InsideTables::config(&Tables).workers;
            let entry = context.rx_queue_index().wrapping_mul(workers).wrapping_add(worker);
            let steered = INSIDE_XSKS.redirect(entry, XDP_DROP.into()).is_ok();
            finish_redirect(steered, Counter::InsideSteered, Counter::InsideNoWorker)
        }
        Verdict::Pass(reason) => finish(XDP_PASS, reason),
        Verdict::Drop(reason) => finish(XDP_DROP, reason),
    }
}

#[inline(always)]
fn finish_redirect(steered: bool, redirected: Counter, no_worker: Counter) -> u32 {
    if steered { finish(XDP_REDIRECT, redirected) } else { finish(XDP_DROP, no_worker) }
}

#[inline(always)]
fn finish(action: u32, reason: Counter) -> u32 {
    if let Some(count) = COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: the pointer is to this CPU's own slot of a live map value, and an XDP program is not preempted by
        // another one on its CPU.
        unsafe { *count += 1 };
    }
    action
}

/// The first buffer of a frame, between the bounds that the kernel gives.
struct Packet {
    start: usize,
    end: usize,
    length: usize,
}

impl Packet {
    #[inline(always)]
    fn of(context: &XdpContext) -> Self {
        // SAFETY: the context is the one that the kernel called this program with.
        let length = unsafe { bpf_xdp_get_buff_len(context.as_ptr().cast()) };
        Self { start: context.data(), end: context.data_end(), length: length as usize }
    }
}

impl Frame for Packet {
    #[inline(always)]
    fn chunk<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let start = self.start + offset;
        if start + N > self.end {
            return None;
        }
        // SAFETY: start..start + N lies in the packet, as just compared (the verifier holds us to it), bytes have no
        // alignment, and the packet lives as long as the program runs.
        Some(unsafe { &*(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }
}

/// The maps, as the decisions see them. A failed lookup in an array cannot happen and reads as "touch nothing".
struct Tables;

impl OutsideTables for Tables {
    #[inline(always)]
    fn config(&self) -> OutsideConfig {
        OutsideConfig::decode(OUTSIDE_CONFIG.get(0).copied().unwrap_or_default())
    }

    #[inline(always)]
    fn is_local(&self, address: &Address) -> bool {
        LOCAL_ADDRESSES.get_ptr(address.0).is_some()
    }

    #[inline(always)]
    fn slot_entry(&self, slot: u16) -> u32 {
        SLOTS.get(slot.into()).copied().unwrap_or(NO_WORKER)
    }
}

impl InsideTables for Tables {
    #[inline(always)]
    fn config(&self) -> InsideConfig {
        InsideConfig::decode(INSIDE_CONFIG.get(0).copied().unwrap_or_default())
    }

    #[inline(always)]
    fn client_entry(&self, index: u32) -> u32 {
        POOL.get(index).copied().unwrap_or(NO_WORKER)
    }
}

/// Nothing here panics; the language wants a handler all the same.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
