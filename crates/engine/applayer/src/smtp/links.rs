//! Links in the text of a mail: what stands behind a scheme and `://`, up to what cannot be part of it.

/// Links of one mail; further ones are not kept.
const LINKS_MAX: usize = 256;
/// Bytes of one; the rest is cut off.
const LINK_BYTES_MAX: usize = 2048;

#[derive(Debug, Default)]
pub(super) struct Links {
    /// Without their schemes, each once.
    pub all: Vec<Vec<u8>>,
}

impl Links {
    /// Of a line, or a piece of a long one.
    pub fn find(&mut self, line: &[u8], schemes: &[String], found: &mut dyn FnMut(&[u8])) {
        let mut rest = line;
        while let Some(at) = memchr::memmem::find(rest, b"://") {
            let (before, behind) = (&rest[..at], &rest[at + 3..]);
            let ends = |byte: &u8| byte.is_ascii_whitespace() || byte.is_ascii_control() || b"\"'<>[]".contains(byte);
            let len = behind.iter().position(ends).unwrap_or(behind.len());
            let link = &behind[..len.min(LINK_BYTES_MAX)];
            rest = &behind[len..];
            let letters = before.iter().rev().take_while(|byte| byte.is_ascii_alphanumeric()).count();
            let scheme = &before[before.len() - letters..];
            let asked = schemes.iter().any(|wanted| wanted.as_bytes().eq_ignore_ascii_case(scheme));
            if asked && !link.is_empty() && self.all.len() < LINKS_MAX && !self.all.iter().any(|known| known == link) {
                found(link);
                self.all.push(link.to_vec());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_end_where_text_goes_on() {
        let (mut links, mut found) = (Links::default(), Vec::new());
        let schemes = ["http".to_owned(), "ftp".to_owned()];
        let line = b"see <a href=\"HTTP://a.test/b?c#d\">http://e.test</a> https://no.test xftp://no ftp://f http://e.test http://";
        links.find(line, &schemes, &mut |link| found.push(String::from_utf8_lossy(link).into_owned()));
        assert_eq!(found, ["a.test/b?c#d", "e.test", "f"]);
        for number in 0..2 * LINKS_MAX {
            links.find(format!("http://{number}").as_bytes(), &schemes, &mut |_| {});
        }
        assert_eq!(links.all.len(), LINKS_MAX);
    }
}
