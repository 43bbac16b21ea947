//! Is this TLS, and does only ciphertext follow? Walks record headers of one direction (RFC 8446, section 5.1);
//! the records' contents are not looked at.

const RECORD_MAX: u16 = 16_384 + 256;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RecordWalk {
    header: [u8; 5],
    have: u8,
    /// Bytes of the current record still to come.
    left: u32,
    records: u32,
    broken: bool,
    application_data: bool,
}

impl RecordWalk {
    /// The direction began as TLS and has reached application data.
    pub const fn is_encrypted(&self) -> bool {
        self.application_data && !self.broken
    }

    /// Bytes were lost: nothing can be said any more.
    pub const fn give_up(&mut self) {
        self.broken = true;
    }

    /// The next bytes of the direction, from its first.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !self.broken && !self.application_data && !bytes.is_empty() {
            if self.left > 0 {
                let skip = (self.left as usize).min(bytes.len());
                self.left -= skip as u32;
                bytes = &bytes[skip..];
                continue;
            }
            let take = (5 - usize::from(self.have)).min(bytes.len());
            let have = usize::from(self.have);
            self.header[have..have + take].copy_from_slice(&bytes[..take]);
            self.have += take as u8;
            bytes = &bytes[take..];
            if self.have == 5 {
                self.have = 0;
                self.record();
            }
        }
    }

    fn record(&mut self) {
        let [kind, major, _, high, low] = self.header;
        let len = u16::from_be_bytes([high, low]);
        let first_is_handshake = self.records > 0 || kind == 22;
        if !(20..=24).contains(&kind) || major != 3 || len > RECORD_MAX || !first_is_handshake {
            self.broken = true;
            return;
        }
        self.records = self.records.saturating_add(1);
        self.application_data = kind == 23;
        self.left = u32::from(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn application_data_after_a_handshake_is_encrypted_wherever_it_is_cut() {
        let stream = [&[22, 3, 1, 0, 3, 1, 2, 3][..], &[20, 3, 3, 0, 1, 1], &[23, 3, 3, 0, 2, 9, 9]].concat();
        for cut in 0..stream.len() {
            let mut walk = RecordWalk::default();
            walk.push(&stream[..cut]);
            walk.push(&stream[cut..]);
            assert!(walk.is_encrypted(), "{cut}");
        }
        for not in [&b"GET / HTTP/1.1\r\n"[..], &[23, 3, 3, 0, 2, 9, 9], &[22, 3, 1, 255, 255, 0]] {
            let mut walk = RecordWalk::default();
            walk.push(not);
            walk.push(&stream);
            assert!(!walk.is_encrypted());
        }
    }
}
