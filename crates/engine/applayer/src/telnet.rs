//! TELNET (RFC 854): recognised by its commands; what is typed is looked at as payload only.

use crate::context::Io;
use crate::names::Dir;
use crate::protocol::{Next, Parser, Probe, Step};

const COMMAND: u8 = 0xff;
/// The highest option that is assigned, but for three.
const OPTION_MAX: u8 = 49;
/// Commands that a conversation has to begin with to be taken for this.
const COMMANDS_MIN: usize = 2;

/// Offers and demands of options, as both sides begin with.
pub(crate) fn probe(_: Dir, bytes: &[u8]) -> Probe {
    let mut found = 0;
    for command in bytes.chunks(3) {
        match command {
            [COMMAND, 0xfb..=0xfe, option] if *option <= OPTION_MAX || (138..=140).contains(option) => found += 1,
            [COMMAND] | [COMMAND, 0xfb..=0xfe] => return Probe::More,
            _ => return Probe::No,
        }
        if found >= COMMANDS_MIN {
            return Probe::Yes;
        }
    }
    Probe::More
}

#[derive(Debug, Default)]
pub(crate) struct Telnet;

impl Parser for Telnet {
    fn data(&mut self, bytes: &[u8], _: &mut Io<'_>) -> Step {
        Step::on(bytes.len())
    }

    fn gap(&mut self, _: u64, _: &[u8], _: &mut Io<'_>) -> Next {
        Next::Continue
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
