//! HTTP/1 that becomes HTTP/2 (`Upgrade: h2c`, RFC 7540, section 3.2): the request is the first stream's.

use super::{Half, Http2, SETTINGS_MAX, Stream};
use crate::context::Io;
use crate::http::{Scratch, Side, fields_to_values};
use crate::names::{Dir, Field, Protocol, Stage};

/// What the request of an upgrade leaves to the connection that follows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Upgraded {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    pub host: Option<Vec<u8>>,
    /// `HTTP2-Settings`
    pub settings: Option<Vec<u8>>,
}

impl Http2 {
    /// The first stream, with the request that asked for it.
    pub(super) fn begin_upgraded(&mut self, from: &Upgraded, io: &mut Io<'_>) {
        let Some(id) = io.begin(Protocol::Http2) else { return };
        let (wanted, double) = (io.context.config.wanted, io.context.config.double_decode);
        let mut scratch = std::mem::take(&mut io.context.scratch);
        fill(&mut scratch, from);
        let settings = from.settings.as_deref().map(|text| super::doh::base64url(text).filter(|bytes| bytes.len().is_multiple_of(6)));
        if let Some(tx) = io.tx(id) {
            let dir = Dir::ToServer;
            tx.integer_is(Field::Http2StreamId, dir, 1);
            super::show(tx, dir, &scratch, false);
            super::note_fields(tx, dir, &scratch, None);
            super::request(tx, &mut scratch, double);
            fields_to_values(tx, dir, Side::Request, &scratch, &wanted);
            tx.advance(dir, Stage::Complete);
        }
        io.context.scratch = scratch;
        // The settings are the connection's.
        if let Some(settings) = settings
            && let Some(id) = io.begin(Protocol::Http2)
            && let Some(tx) = io.tx(id)
        {
            let dir = Dir::ToServer;
            tx.integer_is(Field::Http2StreamId, dir, 0);
            match settings {
                Some(settings) => super::settings(tx, dir, &settings[..settings.len().min(6 * SETTINGS_MAX)]),
                None => tx.event("http2.invalid_http1_settings", dir),
            }
            tx.advance(Dir::ToServer, Stage::Complete);
            tx.advance(Dir::ToClient, Stage::Complete);
        }
        self.streams.insert(1, Stream { tx: id, sides: [Half { begun: true, ..Half::default() }, Half::default()] });
        self.highest = self.highest.max(1);
    }
}

/// What HTTP/1 has shown of it already is not shown again.
fn fill(scratch: &mut Scratch, from: &Upgraded) {
    scratch.clear();
    scratch.add(b":method", &from.method);
    scratch.add(b":path", &from.target);
    if let Some(host) = &from.host {
        scratch.add(b":authority", host);
    }
    scratch.done();
}
