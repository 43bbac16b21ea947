//! Datagrams of 200 bytes in one flow, in batches by `sendmmsg`, at a stated rate or as fast as the sender can.
//!
//! What is lost at the receiver's own socket counts as lost too: `bare` shows how much that is.

use std::io::{ErrorKind, IoSlice};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg, sockopt};

use super::Ends;
use crate::Error;

pub const PAYLOAD_BYTES: usize = 200;
const PORT: u16 = 5401;
/// Datagrams in one system call.
const BATCH: usize = 32;
/// So that a receiver that is not scheduled for some milliseconds does not lose what the path has carried.
const RECEIVE_BUFFER_BYTES: usize = 16 << 20;
/// After the sender's end, for what is still under way.
const SETTLE: Duration = Duration::from_millis(300);
/// Waits that are longer than this are slept, shorter ones spent awake.
const SLEEP_FROM: Duration = Duration::from_micros(150);

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Datagrams {
    pub sent: u64,
    pub received: u64,
    /// Of the sending.
    pub time: Duration,
}

/// `per_second`: none for as many as can be sent.
pub fn run(ends: &Ends<'_>, per_second: Option<u32>, time: Duration) -> Result<Datagrams, Error> {
    let receiver_at = ends.server_at(PORT);
    let receiver = ends.server.run(|| UdpSocket::bind(receiver_at))?.map_err(Error::io("bind a receiver"))?;
    let sender = ends.client.run(|| UdpSocket::bind("0.0.0.0:0"))?.map_err(Error::io("bind a sender"))?;
    sender.connect(receiver_at).map_err(Error::io("connect a sender"))?;
    receiver.set_read_timeout(Some(Duration::from_millis(50))).map_err(Error::io("set up a receiver"))?;
    sockopt::set_socket_recv_buffer_size_force(&receiver, RECEIVE_BUFFER_BYTES)
        .map_err(|errno| Error::Io { doing: "set up a receiver".into(), source: errno.into() })?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let counting = scope.spawn(|| count(&receiver, &stop));
        let sent = send(&sender, per_second, time);
        thread::sleep(SETTLE);
        stop.store(true, Ordering::Relaxed);
        let received = counting.join().unwrap_or(0);
        let (sent, time) = sent.map_err(Error::io("send datagrams"))?;
        Ok(Datagrams { sent, received, time })
    })
}

/// Sends one batch of equal datagrams; gives how many went. A full queue on the way counts as sent and lost.
pub fn send_batch(socket: impl AsFd, payload: &[u8], count: usize) -> Result<usize, Errno> {
    let slices = [IoSlice::new(payload)];
    let mut controls: Vec<_> = (0..count).map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: Vec<_> = controls.iter_mut().map(|control| MMsgHdr::new(&slices, control)).collect();
    match sendmmsg(socket, &mut messages, SendFlags::empty()) {
        Ok(sent) => Ok(sent),
        Err(Errno::NOBUFS | Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(errno) => Err(errno),
    }
}

fn send(socket: &UdpSocket, per_second: Option<u32>, time: Duration) -> std::io::Result<(u64, Duration)> {
    let payload = [b'u'; PAYLOAD_BYTES];
    let began = Instant::now();
    let mut sent = 0;
    loop {
        let elapsed = began.elapsed();
        if elapsed >= time {
            return Ok((sent, elapsed));
        }
        if let Some(rate) = per_second {
            let due = Duration::from_secs_f64(sent as f64 / f64::from(rate.max(1)));
            if let Some(wait) = due.checked_sub(elapsed) {
                if wait > SLEEP_FROM {
                    thread::sleep(wait - SLEEP_FROM / 2);
                }
                continue;
            }
        }
        sent += send_batch(socket, &payload, BATCH)? as u64;
    }
}

fn count(socket: &UdpSocket, stop: &AtomicBool) -> u64 {
    let mut buffer = [0; 2048];
    let mut received = 0;
    loop {
        match socket.recv(&mut buffer) {
            Ok(_) => received += 1,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if stop.load(Ordering::Relaxed) {
                    return received;
                }
            }
            Err(_) => {}
        }
    }
}
