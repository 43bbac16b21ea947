//! NFQUEUE: packets that a netfilter rule hands to user space, and the verdicts on them.
//!
//! One [`Queue`] is one queue number with a socket of its own, for one thread. Packets are read in
//! batches of up to 64 ([`Batch`]); one [`Queue::accept_up_to`] answers a whole batch, single
//! [`Decision`]s answer the exceptions. GSO packets come whole when the queue is opened so.
//!
//! A packet without a verdict waits in the kernel; when `packets_max` wait, or the socket's buffer
//! is full, further ones are dropped, or accepted when the queue is opened `fail_open`. When the
//! socket is closed the kernel drops what waits; the rule's `--queue-bypass` says what happens to
//! later packets. Source: `include/uapi/linux/netfilter/nfnetlink_queue.h`,
//! `net/netfilter/nfnetlink_queue.c`.

use crate::call::{read_file, set_option};
use crate::netlink::wire::{Attr, Malformed, Message, Messages, Request};
use crate::netlink::{self, Socket};
use crate::{Errno, OsError, netns};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

/// Packets read by one call. Beyond 64 the cost of the call itself no longer shows.
pub const BATCH_PACKETS_MAX: usize = 64;
/// Bytes of one message: a packet of 64 KiB and its attributes, which stay below 1 KiB.
const SLOT_BYTES: usize = 65_536 + 4096;
/// Packets that may arrive between binding a queue and the acknowledgement of it.
const EARLY_PACKETS_MAX: usize = 4096;

/// How a queue is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// Packets that may wait for their verdict (`NFQA_CFG_QUEUE_MAXLEN`; the kernel's own default is 1024).
    pub packets_max: u32,
    /// Bytes of each packet that are handed over; at most 65531 (`0xffff` minus an attribute's header).
    pub copy_bytes: u32,
    /// Hand GSO packets over whole, with partial checksums (`NFQA_CFG_F_GSO`). Without it the
    /// kernel cuts each into MTU-sized packets first, at six times the cost.
    pub gso: bool,
    /// Accept packets for which there is no room (`NFQA_CFG_F_FAIL_OPEN`); they are dropped otherwise.
    pub fail_open: bool,
    /// Bytes that may wait in the socket.
    pub receive_bytes: i32,
}

impl Default for QueueConfig {
    /// 4096 packets, whole, GSO kept, no room means drop, 64 MiB.
    fn default() -> Self {
        QueueConfig { packets_max: 4096, copy_bytes: 0xffff, gso: true, fail_open: false, receive_bytes: 64 * 1024 * 1024 }
    }
}

/// The verdict on one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on behind the rule that queued it.
    Accept,
    /// It is thrown away.
    Drop,
    /// It goes through the hook once more from its start.
    Repeat,
    /// It goes to another queue.
    Queue(u16),
}

impl Verdict {
    /// `NF_…` of include/uapi/linux/netfilter.h; the queue's number stands in the upper half.
    fn code(self) -> u32 {
        match self {
            Verdict::Drop => 0,
            Verdict::Accept => 1,
            Verdict::Queue(num) => u32::from(num) << 16 | 3,
            Verdict::Repeat => 4,
        }
    }
}

/// The verdict on a packet, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// [`Packet::id`].
    pub id: u32,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Mark (`skb->mark`) to set; `None` leaves it.
    pub mark: Option<u32>,
}

/// The netfilter hook that a packet was queued at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Just arrived.
    PreRouting,
    /// To this host.
    Input,
    /// From one interface to another.
    Forward,
    /// From this host.
    Output,
    /// About to leave.
    PostRouting,
    /// One that this crate does not know.
    Other(u8),
}

impl From<u8> for Hook {
    fn from(hook: u8) -> Self {
        match hook {
            0 => Hook::PreRouting,
            1 => Hook::Input,
            2 => Hook::Forward,
            3 => Hook::Output,
            4 => Hook::PostRouting,
            other => Hook::Other(other),
        }
    }
}

/// A packet that waits for its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Number in the queue, to be named in the verdict. Ascending, wraps.
    pub id: u32,
    /// EtherType: 0x0800 IPv4, 0x86dd IPv6; 0 when the kernel does not tell.
    pub ethertype: u16,
    /// Where it was queued.
    pub hook: Hook,
    /// The packet from its network header on. Empty for one that was queued in the moment of binding.
    pub payload: &'a [u8],
    /// Its true length when `payload` was cut (see [`QueueConfig::copy_bytes`]).
    pub cut_from: Option<u32>,
    /// Interface it came in through (a bridge, where it crosses one), in the queue's namespace.
    pub indev: Option<u32>,
    /// Interface it is to leave through.
    pub outdev: Option<u32>,
    /// Port of the bridge it came in through.
    pub physindev: Option<u32>,
    /// Port of the bridge it is to leave through.
    pub physoutdev: Option<u32>,
    /// Its mark (`skb->mark`).
    pub mark: u32,
    /// Its checksums are not filled in yet (`CHECKSUM_PARTIAL`); they are not wrong.
    pub csum_not_ready: bool,
    /// Its checksums were not looked at yet.
    pub csum_not_verified: bool,
    /// It is a GSO packet: larger than the MTU.
    pub gso: bool,
    /// VLAN tag outside of `payload`: protocol (0x8100, 0x88a8) and tag control information.
    pub vlan: Option<(u16, u16)>,
}

/// Counts since the queue was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets read.
    pub packets: u64,
    /// Packets whose payload was cut, or was not handed over because they came in the moment of binding.
    pub cut: u64,
    /// Times that the socket's buffer was full; packets were lost (see [`KernelCounters::user_dropped`]).
    pub overflows: u64,
    /// Messages that did not hold together. Their packets get no verdict, as their id is not known.
    pub malformed: u64,
    /// Verdicts that the kernel refused: no such packet waits.
    pub verdicts_refused: u64,
}

impl Counters {
    /// Keeps and counts a packet, or counts that it could not be read.
    fn note(&mut self, parsed: Result<Meta, Malformed>, packets: &mut Vec<Meta>) {
        match parsed {
            Ok(meta) => {
                self.packets += 1;
                self.cut += u64::from(meta.cut_from.is_some());
                packets.push(meta);
            }
            Err(_) => self.malformed += 1,
        }
    }
}

/// A queue number, bound.
#[derive(Debug)]
pub struct Queue {
    socket: Socket,
    num: u16,
    counters: Counters,
    /// Messages that came before the acknowledgement of binding.
    early: Vec<Vec<u8>>,
    verdicts: Vec<u8>,
}

impl Queue {
    /// Binds the queue `num` of the calling thread's network namespace. `EBUSY` or `EPERM`: another process has it.
    pub fn open(num: u16, config: &QueueConfig) -> Result<Self, netlink::Error> {
        let mut socket = Socket::open(libc::NETLINK_NETFILTER, 0)?;
        set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, config.receive_bytes, "SO_RCVBUFFORCE")?;
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        let flags = flag(config.gso, CFG_F_GSO) | flag(config.fail_open, CFG_F_FAIL_OPEN);
        let mut request = Request::new(kind(MSG_CONFIG), 0, &nfgenmsg(num));
        // One message, so that only packets of this instant can see the kernel's defaults.
        request.attr(CFG_CMD, &[CMD_BIND, 0, 0, 0]);
        let [r0, r1, r2, r3] = config.copy_bytes.min(COPY_BYTES_MAX).to_be_bytes();
        request.attr(CFG_PARAMS, &[r0, r1, r2, r3, COPY_PACKET]);
        request.attr(CFG_QUEUE_MAXLEN, &config.packets_max.to_be_bytes());
        request.attr(CFG_MASK, &(CFG_F_GSO | CFG_F_FAIL_OPEN).to_be_bytes());
        request.attr(CFG_FLAGS, &flags.to_be_bytes());
        let mut early = Vec::new();
        socket.command_with(&mut request, &|| format!("bind netfilter queue {num}"), &mut |message| {
            if message.kind == kind(MSG_PACKET) && early.len() < EARLY_PACKETS_MAX {
                early.push(message.body.to_vec());
            }
        })?;
        Ok(Queue { socket, num, counters: Counters::default(), early, verdicts: Vec::new() })
    }

    /// Binds a queue of the namespace `netns`.
    pub fn open_in(netns: impl AsFd, num: u16, config: &QueueConfig) -> Result<Self, netlink::Error> {
        netns::run_in(netns, || Queue::open(num, config))?
    }

    /// Binds `count` queues from `first` on, one for each worker (`--queue-balance first:last`); all or none.
    pub fn open_range(first: u16, count: u16, config: &QueueConfig) -> Result<Vec<Self>, netlink::Error> {
        let end = first.checked_add(count).ok_or_else(|| OsError::new(format!("bind {count} queues from {first} on"), libc::EINVAL))?;
        (first..end).map(|num| Queue::open(num, config)).collect()
    }

    /// Its number.
    pub fn num(&self) -> u16 {
        self.num
    }

    /// Counts since it was opened.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Reads the packets that wait, at most [`BATCH_PACKETS_MAX`], without waiting, and returns how
    /// many. Each must get a verdict. An overflow is counted and not an error.
    pub fn receive(&mut self, batch: &mut Batch) -> Result<usize, OsError> {
        batch.packets.clear();
        if !self.early.is_empty() {
            self.take_early(batch);
            return Ok(batch.packets.len());
        }
        let datagrams = loop {
            match batch.fill(self.socket.as_fd()) {
                Ok(datagrams) => break datagrams,
                Err(Errno(libc::EAGAIN)) => return Ok(0),
                Err(Errno(libc::EINTR)) => continue,
                // The error is told once for each overflow; what came before it still waits.
                Err(Errno(libc::ENOBUFS)) => self.counters.overflows += 1,
                Err(errno) => return Err(OsError { doing: format!("read from netfilter queue {}", self.num), errno }),
            }
        };
        for (slot, datagram) in datagrams.iter().enumerate().filter_map(|(slot, len)| Some((slot, (*len)?))) {
            self.take(batch, slot, datagram);
        }
        Ok(batch.packets.len())
    }

    /// Accepts every packet that waits with an id up to and including `id` (in the order in which they were
    /// queued), all with the same mark. Answer those that are to be dropped before.
    pub fn accept_up_to(&mut self, id: u32, mark: Option<u32>) -> Result<(), OsError> {
        self.verdicts.clear();
        push_verdict(&mut self.verdicts, MSG_VERDICT_BATCH, self.num, Decision { id, verdict: Verdict::Accept, mark });
        self.send_verdicts()
    }

    /// Answers one packet.
    pub fn verdict(&mut self, decision: Decision) -> Result<(), OsError> {
        self.verdicts(&[decision])
    }

    /// Answers several packets by one system call for each 64 of them.
    pub fn verdicts(&mut self, decisions: &[Decision]) -> Result<(), OsError> {
        for some in decisions.chunks(BATCH_PACKETS_MAX) {
            self.verdicts.clear();
            for &decision in some {
                push_verdict(&mut self.verdicts, MSG_VERDICT, self.num, decision);
            }
            self.send_verdicts()?;
        }
        Ok(())
    }

    fn send_verdicts(&mut self) -> Result<(), OsError> {
        let num = self.num;
        netlink::send(self.socket.as_fd(), &self.verdicts, &|| format!("send verdicts to netfilter queue {num}"))
    }

    /// Puts packets that came before the acknowledgement into the batch.
    fn take_early(&mut self, batch: &mut Batch) {
        let some = self.early.len().min(BATCH_PACKETS_MAX);
        for (slot, body) in self.early.drain(..some).enumerate() {
            match batch.slot_mut(slot).get_mut(..body.len()) {
                Some(space) => space.copy_from_slice(&body),
                None => {
                    self.counters.malformed += 1;
                    continue;
                }
            }
            self.counters.note(parse_body(&body).map(|meta| meta.at(slot, 0)), &mut batch.packets);
        }
    }

    /// Takes the datagram in a slot apart.
    fn take(&mut self, batch: &mut Batch, slot: usize, len: usize) {
        let (space, packets) = batch.split(slot, len);
        for message in Messages::new(space) {
            let Ok(message) = message else {
                self.counters.malformed += 1;
                return;
            };
            match message.kind {
                kind if kind == self::kind(MSG_PACKET) => {
                    let body_at = message.body.as_ptr().addr() - space.as_ptr().addr();
                    self.counters.note(parse_body(message.body).map(|meta| meta.at(slot, body_at)), packets);
                }
                NLMSG_ERROR => self.counters.verdicts_refused += 1,
                _ => {}
            }
        }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Room for the packets of one [`Queue::receive`]: 4.5 MiB of address space, of which only what is used is memory.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    packets: Vec<Meta>,
}

impl Default for Batch {
    fn default() -> Self {
        Batch::new()
    }
}

impl Batch {
    /// An empty batch, to be used over and over.
    pub fn new() -> Self {
        Batch { bytes: vec![0; SLOT_BYTES * BATCH_PACKETS_MAX], packets: Vec::with_capacity(BATCH_PACKETS_MAX) }
    }

    /// How many packets it holds.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Does it hold none?
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// The packets in the order in which they were queued.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Packet<'_>> {
        self.packets.iter().map(|meta| meta.packet(&self.bytes))
    }

    fn slot_mut(&mut self, slot: usize) -> &mut [u8] {
        &mut self.bytes[slot * SLOT_BYTES..(slot + 1) * SLOT_BYTES]
    }

    fn split(&mut self, slot: usize, len: usize) -> (&[u8], &mut Vec<Meta>) {
        (&self.bytes[slot * SLOT_BYTES..][..len.min(SLOT_BYTES)], &mut self.packets)
    }

    /// Reads datagrams into the slots; for each slot the length, or `None` when it is not the kernel's or was cut.
    fn fill(&mut self, fd: BorrowedFd<'_>) -> Result<[Option<usize>; BATCH_PACKETS_MAX], Errno> {
        // SAFETY: all-zero is a valid value of these C structures.
        let (mut names, mut headers): ([libc::sockaddr_nl; BATCH_PACKETS_MAX], [libc::mmsghdr; BATCH_PACKETS_MAX]) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH_PACKETS_MAX];
        for (((header, name), vector), slot) in
            headers.iter_mut().zip(&mut names).zip(&mut vectors).zip(self.bytes.chunks_exact_mut(SLOT_BYTES))
        {
            *vector = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            header.msg_hdr.msg_name = (name as *mut libc::sockaddr_nl).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the headers point to live names, vectors and slots of the stated lengths; a null timeout is allowed.
        let ret = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH_PACKETS_MAX as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if ret < 0 {
            return Err(Errno::last());
        }
        let mut lengths = [None; BATCH_PACKETS_MAX];
        for ((length, header), name) in lengths.iter_mut().zip(&headers).zip(&names).take(ret as usize) {
            let sound = name.nl_pid == 0 && header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            *length = sound.then_some(header.msg_len as usize);
        }
        Ok(lengths)
    }
}

/// A packet whose payload stands in a batch's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Meta {
    id: u32,
    ethertype: u16,
    hook: u8,
    payload: Range<usize>,
    cut_from: Option<u32>,
    devices: [Option<u32>; 4],
    mark: u32,
    skb_info: u32,
    vlan: Option<(u16, u16)>,
}

impl Meta {
    /// The payload's range counted from the start of the batch instead of the message's body.
    fn at(mut self, slot: usize, body_at: usize) -> Self {
        let base = slot * SLOT_BYTES + body_at;
        self.payload = base + self.payload.start..base + self.payload.end;
        self
    }

    fn packet<'a>(&self, bytes: &'a [u8]) -> Packet<'a> {
        let [indev, outdev, physindev, physoutdev] = self.devices;
        Packet {
            id: self.id,
            ethertype: self.ethertype,
            hook: Hook::from(self.hook),
            payload: bytes.get(self.payload.clone()).unwrap_or_default(),
            cut_from: self.cut_from,
            indev,
            outdev,
            physindev,
            physoutdev,
            mark: self.mark,
            csum_not_ready: self.skb_info & SKB_CSUMNOTREADY != 0,
            gso: self.skb_info & SKB_GSO != 0,
            csum_not_verified: self.skb_info & SKB_CSUM_NOTVERIFIED != 0,
            vlan: self.vlan,
        }
    }
}

/// Takes the body of a packet message (behind `nlmsghdr`) apart. A plain function for tests and fuzzing.
pub fn parse_packet(body: &[u8]) -> Result<Packet<'_>, Malformed> {
    parse_body(body).map(|meta| meta.packet(body))
}

fn parse_body(body: &[u8]) -> Result<Meta, Malformed> {
    let message = Message { kind: kind(MSG_PACKET), flags: 0, seq: 0, port: 0, body };
    let (_, attrs) = message.split(NFGENMSG_LEN)?;
    let mut meta =
        Meta { id: 0, ethertype: 0, hook: 0, payload: 0..0, cut_from: None, devices: [None; 4], mark: 0, skb_info: 0, vlan: None };
    let mut header = false;
    let mut cap_len = None;
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            A_PACKET_HDR => {
                let [i0, i1, i2, i3, p0, p1, hook] = attr.array()?;
                (meta.id, meta.ethertype, meta.hook) = (u32::from_be_bytes([i0, i1, i2, i3]), u16::from_be_bytes([p0, p1]), hook);
                header = true;
            }
            A_MARK => meta.mark = attr.be32()?,
            A_IFINDEX_INDEV..=A_IFINDEX_PHYSOUTDEV => {
                let place = usize::from(attr.kind - A_IFINDEX_INDEV);
                meta.devices[place] = Some(attr.be32()?).filter(|&index| index != 0);
            }
            A_PAYLOAD => {
                let start = attr.value.as_ptr().addr() - body.as_ptr().addr();
                meta.payload = start..start + attr.value.len();
            }
            A_CAP_LEN => cap_len = Some(attr.be32()?),
            A_SKB_INFO => meta.skb_info = attr.be32()?,
            A_VLAN => meta.vlan = vlan(&attr)?,
            _ => {}
        }
    }
    meta.cut_from = cap_len.filter(|&len| len as usize > meta.payload.len());
    // Without an id there is nothing to give a verdict on.
    if header { Ok(meta) } else { Err(Malformed::BodyCut { kind: message.kind, len: body.len(), need: NFGENMSG_LEN + 11 }) }
}

fn vlan(attr: &Attr<'_>) -> Result<Option<(u16, u16)>, Malformed> {
    let (mut proto, mut tci) = (None, None);
    for part in attr.nested() {
        let part = part?;
        match part.kind {
            A_VLAN_PROTO => proto = Some(part.be16()?),
            A_VLAN_TCI => tci = Some(part.be16()?),
            _ => {}
        }
    }
    Ok(proto.zip(tci))
}

/// What the kernel counts about one queue (`/proc/net/netfilter/nfnetlink_queue`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelCounters {
    /// The queue.
    pub num: u16,
    /// Netlink port of the socket that has it.
    pub port: u32,
    /// Packets that wait now.
    pub waiting: u32,
    /// Packets dropped because `packets_max` waited.
    pub queue_dropped: u32,
    /// Packets dropped because the socket was full.
    pub user_dropped: u32,
    /// Id of the last packet.
    pub last_id: u32,
}

/// What the kernel counts about the queues that are bound in the calling thread's network namespace.
pub fn kernel_counters() -> Result<Vec<KernelCounters>, OsError> {
    let bytes = read_file(Path::new("/proc/thread-self/net/netfilter/nfnetlink_queue"), KERNEL_TABLE_BYTES_MAX)?;
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(parse_kernel_counters).collect())
}

/// One line: `queue port waiting copy_mode copy_range queue_dropped user_dropped last_id 1`.
fn parse_kernel_counters(line: &str) -> Option<KernelCounters> {
    let mut fields = line.split_ascii_whitespace();
    let mut next = || -> Option<u32> { fields.next()?.parse().ok() };
    let (num, port, waiting, _mode, _range) = (next()?, next()?, next()?, next()?, next()?);
    Some(KernelCounters { num: u16::try_from(num).ok()?, port, waiting, queue_dropped: next()?, user_dropped: next()?, last_id: next()? })
}

fn push_verdict(bytes: &mut Vec<u8>, message: u8, num: u16, decision: Decision) {
    let mut request = Request::new(kind(message), libc::NLM_F_REQUEST as u16, &nfgenmsg(num));
    let ([v0, v1, v2, v3], [i0, i1, i2, i3]) = (decision.verdict.code().to_be_bytes(), decision.id.to_be_bytes());
    request.attr(A_VERDICT_HDR, &[v0, v1, v2, v3, i0, i1, i2, i3]);
    if let Some(mark) = decision.mark {
        request.attr(A_MARK, &mark.to_be_bytes());
    }
    bytes.extend_from_slice(request.finish(0));
}

/// `nlmsg_type` of a message of the queue subsystem.
const fn kind(message: u8) -> u16 {
    (NFNL_SUBSYS_QUEUE << 8) | message as u16
}

/// `struct nfgenmsg`: family, version, resource id (the queue) in network order.
fn nfgenmsg(num: u16) -> [u8; NFGENMSG_LEN] {
    let [n0, n1] = num.to_be_bytes();
    [libc::AF_UNSPEC as u8, 0, n0, n1]
}

/// The table has one line of 60 bytes for each of at most 65536 queues.
const KERNEL_TABLE_BYTES_MAX: usize = 8 * 1024 * 1024;
const NFGENMSG_LEN: usize = 4;
const NFNL_SUBSYS_QUEUE: u16 = 3;
const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;

const MSG_PACKET: u8 = 0;
const MSG_VERDICT: u8 = 1;
const MSG_CONFIG: u8 = 2;
const MSG_VERDICT_BATCH: u8 = 3;

const CFG_CMD: u16 = 1;
const CFG_PARAMS: u16 = 2;
const CFG_QUEUE_MAXLEN: u16 = 3;
const CFG_MASK: u16 = 4;
const CFG_FLAGS: u16 = 5;
const CMD_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const CFG_F_FAIL_OPEN: u32 = 1 << 0;
const CFG_F_GSO: u32 = 1 << 2;
/// `0xffff - NLA_HDRLEN`: what the kernel cuts larger wishes to.
const COPY_BYTES_MAX: u32 = 0xffff - 4;

const A_PACKET_HDR: u16 = 1;
const A_VERDICT_HDR: u16 = 2;
const A_MARK: u16 = 3;
const A_IFINDEX_INDEV: u16 = 5;
const A_IFINDEX_PHYSOUTDEV: u16 = 8;
const A_PAYLOAD: u16 = 10;
const A_CAP_LEN: u16 = 13;
const A_SKB_INFO: u16 = 14;
const A_VLAN: u16 = 19;
const A_VLAN_PROTO: u16 = 1;
const A_VLAN_TCI: u16 = 2;

const SKB_CSUMNOTREADY: u32 = 1 << 0;
const SKB_GSO: u32 = 1 << 1;
const SKB_CSUM_NOTVERIFIED: u32 = 1 << 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::tests::Random;

    fn body() -> Vec<u8> {
        let mut request = Request::new(0, 0, &nfgenmsg(9));
        request.attr(A_PACKET_HDR, &[0, 0, 1, 2, 0x08, 0x00, 2]);
        request.attr(A_MARK, &0x40_u32.to_be_bytes());
        for (kind, index) in (A_IFINDEX_INDEV..=A_IFINDEX_PHYSOUTDEV).zip([3_u32, 4, 5, 0]) {
            request.attr(kind, &index.to_be_bytes());
        }
        request.attr(A_SKB_INFO, &(SKB_CSUMNOTREADY | SKB_GSO).to_be_bytes());
        request.nest(A_VLAN, |vlan| {
            vlan.attr(A_VLAN_PROTO, &[0x81, 0x00]).attr(A_VLAN_TCI, &[0x00, 0x2a]);
        });
        request.attr(A_CAP_LEN, &9000_u32.to_be_bytes());
        request.attr(A_PAYLOAD, b"the packet");
        request.finish(0)[crate::netlink::wire::HEADER_LEN..].to_vec()
    }

    #[test]
    fn a_packet_with_all_attributes_is_taken_apart() {
        let body = body();
        let expected = Packet {
            id: 258,
            ethertype: 0x0800,
            hook: Hook::Forward,
            payload: b"the packet",
            cut_from: Some(9000),
            indev: Some(3),
            outdev: Some(4),
            physindev: Some(5),
            physoutdev: None,
            mark: 0x40,
            csum_not_ready: true,
            csum_not_verified: false,
            gso: true,
            vlan: Some((0x8100, 42)),
        };
        assert_eq!(parse_packet(&body), Ok(expected));
    }

    #[test]
    fn a_packet_without_its_id_is_malformed() {
        assert!(parse_packet(&[]).is_err());
        assert!(parse_packet(&nfgenmsg(0)).is_err());
        let mut request = Request::new(0, 0, &nfgenmsg(0));
        request.attr(A_PAYLOAD, b"x");
        assert!(parse_packet(&request.finish(0)[16..]).is_err());
    }

    #[test]
    fn cut_and_mutated_packets_never_panic() {
        let whole = body();
        for len in 0..whole.len() {
            let _ = parse_packet(&whole[..len]);
        }
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..100_000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.below(bytes.len());
                bytes[at] = random.below(256) as u8;
            }
            match parse_packet(&bytes) {
                Ok(packet) => {
                    good += 1;
                    assert!(packet.payload.len() <= bytes.len());
                }
                Err(_) => bad += 1,
            }
        }
        assert!(good > 1000 && bad > 1000, "{good} good, {bad} bad: the mutations reach both sides");
    }

    #[test]
    fn packets_that_came_before_the_acknowledgement_are_read_first() {
        // Any netlink socket without messages will do for what comes behind them.
        let socket = Socket::open(libc::NETLINK_ROUTE, 0).unwrap();
        let mut early = vec![body(); BATCH_PACKETS_MAX + 3];
        early[1] = b"rubbish".to_vec();
        early[2] = vec![0; SLOT_BYTES + 1];
        let mut queue = Queue { socket, num: 9, counters: Counters::default(), early, verdicts: Vec::new() };
        let mut batch = Batch::new();
        assert_eq!(queue.receive(&mut batch).unwrap(), BATCH_PACKETS_MAX - 2);
        assert!(batch.iter().all(|packet| packet.id == 258 && packet.payload == b"the packet"));
        assert_eq!(queue.receive(&mut batch).unwrap(), 3);
        assert_eq!(queue.receive(&mut batch).unwrap(), 0);
        let packets = BATCH_PACKETS_MAX as u64 + 1;
        assert_eq!(queue.counters(), Counters { packets, cut: packets, malformed: 2, ..Counters::default() });
    }

    #[test]
    fn verdicts_stand_in_the_kernels_layout() {
        let mut bytes = Vec::new();
        push_verdict(&mut bytes, MSG_VERDICT, 0x0102, Decision { id: 7, verdict: Verdict::Queue(3), mark: Some(0x40) });
        push_verdict(&mut bytes, MSG_VERDICT_BATCH, 1, Decision { id: 8, verdict: Verdict::Accept, mark: None });
        let messages: Vec<_> = Messages::new(&bytes).collect::<Result<_, _>>().unwrap();
        let [single, batch] = messages.as_slice() else { panic!("{messages:?}") };
        assert_eq!((single.kind, single.flags, batch.kind), (0x301, 1, 0x303));
        let (fixed, mut attrs) = single.split(NFGENMSG_LEN).unwrap();
        assert_eq!(fixed, [0, 0, 1, 2]);
        assert_eq!(attrs.next().unwrap().unwrap().value, [0, 3, 0, 3, 0, 0, 0, 7]);
        assert_eq!(attrs.next().unwrap().unwrap().value, [0, 0, 0, 0x40]);
        assert_eq!(batch.split(NFGENMSG_LEN).unwrap().1.count(), 1);
    }

    #[test]
    fn the_kernels_table_is_read_and_rubbish_left_out() {
        let line = "    5  31063     2 2 65531     7     8       99  1";
        let expected = KernelCounters { num: 5, port: 31063, waiting: 2, queue_dropped: 7, user_dropped: 8, last_id: 99 };
        assert_eq!(parse_kernel_counters(line), Some(expected));
        for rubbish in ["", "5", "70000 1 2 2 3 4 5 6 1", "a b c d e f g h i"] {
            assert_eq!(parse_kernel_counters(rubbish), None, "{rubbish:?}");
        }
    }
}
