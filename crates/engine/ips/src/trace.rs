//! What a log says of a flow's packets: TCP's flags and state, types of ICMP.
//!
//! The state is that of Suricata's `flow` records, whose words are those of the client's end as a capture between both sees it. It
//! decides nothing: what the receiver makes of a segment is the reassembler's ([`bulkhead_net::stream`]).

use bulkhead_net::decode::{Packet, TcpFlags, Transport};
use bulkhead_net::flow::Direction;

use crate::detect::index;

/// TCP's states as EVE names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TcpState {
    #[default]
    None,
    SynSent,
    SynRecv,
    Established,
    FinWait1,
    FinWait2,
    Closing,
    CloseWait,
    LastAck,
    TimeWait,
    Closed,
}

impl TcpState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SynSent => "syn_sent",
            Self::SynRecv => "syn_recv",
            Self::Established => "established",
            Self::FinWait1 => "fin_wait1",
            Self::FinWait2 => "fin_wait2",
            Self::Closing => "closing",
            Self::CloseWait => "close_wait",
            Self::LastAck => "last_ack",
            Self::TimeWait => "time_wait",
            Self::Closed => "closed",
        }
    }

    /// EVE's `flow.state` of a flow in this state.
    pub const fn flow_state(self) -> &'static str {
        match self {
            Self::None | Self::SynSent | Self::SynRecv => "new",
            Self::Established | Self::FinWait1 | Self::FinWait2 | Self::Closing | Self::CloseWait => "established",
            Self::LastAck | Self::TimeWait | Self::Closed => "closed",
        }
    }
}

/// One flow's packets so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trace {
    /// All flags that were seen, to the server and to the client.
    pub tcp_flags: [u8; 2],
    pub tcp: TcpState,
    /// Type and code of the first message of each direction.
    pub icmp: [Option<(u8, u8)>; 2],
}

impl Trace {
    pub(crate) fn packet(&mut self, dir: Direction, packet: &Packet<'_>) {
        match &packet.transport {
            Transport::Icmp(icmp) | Transport::Icmpv6(icmp) => _ = self.icmp[index(dir)].get_or_insert((icmp.kind, icmp.code)),
            Transport::Tcp(tcp) => {
                self.tcp_flags[index(dir)] |= (tcp.flags.0 & 0xff) as u8;
            }
            Transport::Udp(_)
            | Transport::Sctp { .. }
            | Transport::Gre { .. }
            | Transport::Esp { .. }
            | Transport::Igmp { .. }
            | Transport::Fragment
            | Transport::NoNextHeader
            | Transport::Other => {}
        }
    }

    /// A segment that the receiver takes; `open`: it may be of a connection whose beginning was not seen.
    pub(crate) fn segment(&mut self, dir: Direction, flags: TcpFlags, open: bool) {
        use TcpState as State;
        let (fin, ack, to_server) = (flags.fin(), flags.ack(), dir == Direction::ToServer);
        self.tcp = match self.tcp {
            _ if flags.rst() => State::Closed,
            State::None | State::SynSent if flags.syn() && ack => State::SynRecv,
            State::None if flags.syn() => State::SynSent,
            State::None if open => State::Established,
            State::SynRecv if ack && !flags.syn() && to_server && !fin => State::Established,
            State::SynSent | State::SynRecv | State::Established if fin => {
                if to_server {
                    State::CloseWait
                } else {
                    State::FinWait1
                }
            }
            State::FinWait1 if fin && to_server => State::TimeWait,
            State::FinWait1 if fin => State::Closing,
            State::FinWait1 if ack && to_server => State::FinWait2,
            State::FinWait2 if fin && to_server => State::TimeWait,
            State::Closing if ack => State::TimeWait,
            State::CloseWait if fin && !to_server => State::LastAck,
            State::LastAck if ack && to_server => State::Closed,
            State::TimeWait if ack && !to_server => State::Closed,
            same => same,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(segments: &[(Direction, TcpFlags)]) -> TcpState {
        let mut trace = Trace::default();
        for (dir, flags) in segments {
            trace.segment(*dir, *flags, true);
        }
        trace.tcp
    }

    #[test]
    fn a_connection_goes_through_its_states() {
        use Direction::{ToClient, ToServer};
        let (syn, ack, fin) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN | TcpFlags::ACK);
        let open = [(ToServer, syn), (ToClient, syn | ack), (ToServer, ack)];
        assert_eq!(after(&open[..2]), TcpState::SynRecv);
        assert_eq!(after(&open), TcpState::Established);
        let close = [(ToServer, fin), (ToClient, fin), (ToServer, ack)];
        assert_eq!(after(&[&open[..], &close[..1]].concat()), TcpState::CloseWait);
        assert_eq!(after(&[&open[..], &close[..]].concat()), TcpState::Closed);
        assert_eq!(after(&[&open[..], &[(ToClient, TcpFlags::RST)]].concat()), TcpState::Closed);
        assert_eq!(after(&[(ToClient, ack)]), TcpState::Established);
    }
}
