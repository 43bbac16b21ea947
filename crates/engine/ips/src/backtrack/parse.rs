//! A pattern's syntax.

use super::{
    CAPTURES_MAX, DEPTH_MAX, Greed, Node, Place, REPETITIONS_MAX, Set, digits, has, join, letters, not, put, range, spaces, words,
};

#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    pub caseless: bool,
    pub dot_all: bool,
    pub multi_line: bool,
    pub extended: bool,
    pub ungreedy: bool,
    pub end_only: bool,
}

pub(super) struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
    pub groups: usize,
    names: Vec<(&'a [u8], usize)>,
}

impl<'a> Parser<'a> {
    pub fn new(pattern: &'a str) -> Self {
        Self { bytes: pattern.as_bytes(), at: 0, depth: 0, groups: 0, names: Vec::new() }
    }

    /// A `)` has no `(`.
    pub fn is_over(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn takes(&mut self, text: &[u8]) -> bool {
        let there = self.bytes[self.at..].starts_with(text);
        if there {
            self.at += text.len();
        }
        there
    }

    /// Up to a `)` or the end. Options that were set within hold to the end of the group: they come back.
    pub fn alternatives(&mut self, mut mode: Mode) -> Result<(Node, Mode), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("groups are more than {DEPTH_MAX} deep"));
        }
        let mut all = Vec::new();
        let mut cat = Vec::new();
        loop {
            match self.peek() {
                None | Some(b')') => break,
                Some(b'|') => {
                    self.at += 1;
                    all.push(Node::Cat(std::mem::take(&mut cat)));
                }
                Some(b'#') if mode.extended => {
                    while self.peek().is_some_and(|byte| byte != b'\n') {
                        self.at += 1;
                    }
                }
                Some(byte) if mode.extended && byte.is_ascii_whitespace() => self.at += 1,
                Some(_) => {
                    if let Some(atom) = self.atom(&mut mode)? {
                        cat.push(self.repeated(atom, mode)?);
                    }
                }
            }
        }
        self.depth -= 1;
        let last = Node::Cat(cat);
        if all.is_empty() {
            return Ok((last, mode));
        }
        all.push(last);
        Ok((Node::Alt(all), mode))
    }

    /// `None`: options only.
    fn atom(&mut self, mode: &mut Mode) -> Result<Option<Node>, String> {
        let Some(byte) = self.peek() else { return Ok(None) };
        self.at += 1;
        Ok(Some(match byte {
            b'.' => Node::Set(if mode.dot_all { [u64::MAX; 4] } else { not(range(b'\n', b'\n')) }),
            b'^' => Node::At(if mode.multi_line { Place::LineStart } else { Place::Start }),
            b'$' => Node::At(match (mode.multi_line, mode.end_only) {
                (true, _) => Place::LineEnd,
                (false, true) => Place::End,
                (false, false) => Place::AlmostEnd,
            }),
            b'[' => Node::Set(self.class(*mode)?),
            b'(' => return self.group(mode),
            b'\\' => self.escape(*mode)?,
            b'*' | b'+' | b'?' => return Err("nothing to repeat".to_owned()),
            byte => self.literal(byte, *mode),
        }))
    }

    fn literal(&self, byte: u8, mode: Mode) -> Node {
        let mut set = range(byte, byte);
        if mode.caseless {
            put(&mut set, byte.to_ascii_lowercase());
            put(&mut set, byte.to_ascii_uppercase());
        }
        Node::Set(set)
    }

    fn group(&mut self, mode: &mut Mode) -> Result<Option<Node>, String> {
        if self.takes(b"*") {
            return Err("`(*` is not supported".to_owned());
        }
        let mut name = None;
        let mut capture = true;
        let mut kind = None;
        let mut inner = *mode;
        if self.takes(b"?") {
            capture = false;
            if self.takes(b"#") {
                while self.peek().is_some_and(|byte| byte != b')') {
                    self.at += 1;
                }
                self.at += 1;
                return Ok(None);
            } else if self.takes(b"P=") {
                let name = self.until(b')')?;
                return Ok(Some(self.named(name, *mode)?));
            } else if self.takes(b":") {
            } else if self.takes(b">") {
                kind = Some(None);
            } else if self.takes(b"=") {
                kind = Some(Some((false, false)));
            } else if self.takes(b"!") {
                kind = Some(Some((false, true)));
            } else if self.takes(b"<=") {
                kind = Some(Some((true, false)));
            } else if self.takes(b"<!") {
                kind = Some(Some((true, true)));
            } else if self.takes(b"P<") || self.takes(b"<") {
                name = Some(self.until(b'>')?);
                capture = true;
            } else {
                let mut on = true;
                loop {
                    match self.peek() {
                        Some(b'-') => on = false,
                        Some(b'i') => inner.caseless = on,
                        Some(b's') => inner.dot_all = on,
                        Some(b'm') => inner.multi_line = on,
                        Some(b'x') => inner.extended = on,
                        Some(b'U') => inner.ungreedy = on,
                        Some(b':') => break self.at += 1,
                        Some(b')') => {
                            self.at += 1;
                            *mode = inner;
                            return Ok(None);
                        }
                        _ => return Err("a group of this kind is not supported".to_owned()),
                    }
                    self.at += 1;
                }
            }
        }
        let number = self.groups + 1;
        if capture {
            self.groups += 1;
            if self.groups > CAPTURES_MAX {
                return Err(format!("more than {CAPTURES_MAX} groups"));
            }
            if let Some(name) = name {
                self.names.push((name, number));
            }
        }
        let (node, _) = self.alternatives(inner)?;
        if !self.takes(b")") {
            return Err("a group is not closed".to_owned());
        }
        let node = Box::new(node);
        Ok(Some(match kind {
            Some(None) => Node::Atomic(node),
            Some(Some((behind, negated))) => Node::Look { node, behind, negated },
            None if capture => Node::Capture(node, number),
            None => *node,
        }))
    }

    fn until(&mut self, end: u8) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|byte| *byte == end).ok_or("a name is not closed")?;
        self.at += len + 1;
        Ok(&rest[..len])
    }

    fn named(&self, name: &[u8], mode: Mode) -> Result<Node, String> {
        let known = self.names.iter().find(|(known, _)| *known == name);
        let (_, group) = known.ok_or_else(|| format!("no group is named `{}`", name.escape_ascii()))?;
        Ok(Node::Back { group: *group, caseless: mode.caseless })
    }

    fn escape(&mut self, mode: Mode) -> Result<Node, String> {
        let Some(byte) = self.peek() else { return Ok(self.literal(b'\\', mode)) };
        let at = |place| Ok(Node::At(place));
        match byte {
            b'A' | b'z' | b'Z' | b'b' | b'B' => {
                self.at += 1;
                at(match byte {
                    b'A' => Place::Start,
                    b'z' => Place::End,
                    b'Z' => Place::AlmostEnd,
                    b'b' => Place::Word,
                    _ => Place::NoWord,
                })
            }
            b'1'..=b'9' => {
                let number: String =
                    self.bytes[self.at..].iter().take(2).take_while(|byte| byte.is_ascii_digit()).map(|byte| *byte as char).collect();
                self.at += number.len();
                Ok(Node::Back { group: number.parse().unwrap_or(0), caseless: mode.caseless })
            }
            b'k' => {
                self.at += 1;
                let end = match self.peek() {
                    Some(b'<') => b'>',
                    Some(b'{') => b'}',
                    Some(b'\'') => b'\'',
                    _ => return Err("`\\k` without a name".to_owned()),
                };
                self.at += 1;
                let name = self.until(end)?;
                self.named(name, mode)
            }
            b'K' | b'G' | b'R' | b'X' | b'C' | b'g' | b'p' | b'P' | b'Q' | b'E' => Err(format!("`\\{}` is not supported", byte as char)),
            _ => Ok(match self.one()? {
                Ok(set) => Node::Set(set),
                Err(byte) => self.literal(byte, mode),
            }),
        }
    }

    /// Behind a backslash: a set, or one byte.
    #[allow(clippy::type_complexity)] // Three outcomes, each used once.
    fn one(&mut self) -> Result<Result<Set, u8>, String> {
        let Some(byte) = self.peek() else { return Err("a backslash at the end".to_owned()) };
        self.at += 1;
        Ok(match byte {
            b'd' => Ok(digits()),
            b'D' => Ok(not(digits())),
            b'w' => Ok(words()),
            b'W' => Ok(not(words())),
            b's' => Ok(spaces()),
            b'S' => Ok(not(spaces())),
            b'h' => Ok(join(range(b'\t', b'\t'), range(b' ', b' '))),
            b'N' => Ok(not(range(b'\n', b'\n'))),
            b'n' => Err(b'\n'),
            b'r' => Err(b'\r'),
            b't' => Err(b'\t'),
            b'f' => Err(0x0c),
            b'v' => Err(0x0b),
            b'a' => Err(0x07),
            b'e' => Err(0x1b),
            b'0' => Err(self.number(8, 2)),
            b'x' if self.takes(b"{") => {
                let text = self.until(b'}')?;
                let text = std::str::from_utf8(text).map_err(|_| "a number that is none")?;
                Err(u8::from_str_radix(text.trim(), 16).map_err(|_| "a number over 255, or none")?)
            }
            b'x' => Err(self.number(16, 2)),
            byte => Err(byte),
        })
    }

    fn number(&mut self, radix: u32, most: usize) -> u8 {
        let mut value = 0;
        for _ in 0..most {
            let Some(digit) = self.peek().and_then(|byte| (byte as char).to_digit(radix)) else { break };
            value = value * radix + digit;
            self.at += 1;
        }
        value as u8
    }

    fn class(&mut self, mode: Mode) -> Result<Set, String> {
        let negated = self.takes(b"^");
        let mut set = [0; 4];
        let mut begun = false;
        loop {
            let Some(byte) = self.peek() else { return Err("a class is not closed".to_owned()) };
            self.at += 1;
            let low = match byte {
                b']' if begun => break,
                b'[' if self.bytes[self.at..].starts_with(b":") => match self.posix() {
                    Some(more) => {
                        set = join(set, more);
                        begun = true;
                        continue;
                    }
                    None => byte,
                },
                b'\\' if self.peek() == Some(b'b') => {
                    self.at += 1;
                    8
                }
                b'\\' => match self.one()? {
                    Ok(more) => {
                        set = join(set, more);
                        begun = true;
                        continue;
                    }
                    Err(byte) => byte,
                },
                byte => byte,
            };
            begun = true;
            let ranged = self.peek() == Some(b'-') && self.bytes.get(self.at + 1).is_some_and(|byte| *byte != b']');
            if !ranged {
                put(&mut set, low);
                continue;
            }
            let before = self.at;
            self.at += 1;
            let high = match self.peek() {
                Some(b'\\') => {
                    self.at += 1;
                    self.one()?
                }
                Some(byte) => {
                    self.at += 1;
                    Err(byte)
                }
                None => return Err("a class is not closed".to_owned()),
            };
            match high {
                Err(high) if low <= high => set = join(set, range(low, high)),
                Err(_) => return Err("a range that goes down".to_owned()),
                // `[a-\d]`: the hyphen is one.
                Ok(_) => {
                    put(&mut set, low);
                    put(&mut set, b'-');
                    self.at = before + 1;
                }
            }
        }
        if mode.caseless {
            for byte in b'a'..=b'z' {
                let upper = byte.to_ascii_uppercase();
                if has(&set, byte) || has(&set, upper) {
                    put(&mut set, byte);
                    put(&mut set, upper);
                }
            }
        }
        Ok(if negated { not(set) } else { set })
    }

    /// `:alpha:]` behind its bracket.
    fn posix(&mut self) -> Option<Set> {
        let rest = &self.bytes[self.at + 1..];
        let len = rest.iter().position(|byte| *byte == b':').filter(|len| rest.get(len + 1) == Some(&b']'))?;
        let (name, negated) = match rest[..len].strip_prefix(b"^") {
            Some(name) => (name, true),
            None => (&rest[..len], false),
        };
        let of = |wanted: fn(&u8) -> bool| {
            let mut set = [0; 4];
            (0..=255).filter(wanted).for_each(|byte| put(&mut set, byte));
            set
        };
        let set = match name {
            b"alpha" => letters(),
            b"digit" => digits(),
            b"alnum" => join(letters(), digits()),
            b"upper" => range(b'A', b'Z'),
            b"lower" => range(b'a', b'z'),
            b"space" => spaces(),
            b"word" => words(),
            b"blank" => join(range(b'\t', b'\t'), range(b' ', b' ')),
            b"punct" => of(u8::is_ascii_punctuation),
            b"print" => range(b' ', b'~'),
            b"graph" => range(b'!', b'~'),
            b"cntrl" => of(u8::is_ascii_control),
            b"xdigit" => of(u8::is_ascii_hexdigit),
            b"ascii" => range(0, 127),
            _ => return None,
        };
        self.at += len + 3;
        Some(if negated { not(set) } else { set })
    }

    fn repeated(&mut self, mut node: Node, mode: Mode) -> Result<Node, String> {
        loop {
            let (min, max) = match self.peek() {
                Some(b'*') => (0, None),
                Some(b'+') => (1, None),
                Some(b'?') => (0, Some(1)),
                Some(b'{') => match self.braces() {
                    Some(counts) => counts,
                    None => return Ok(node),
                },
                _ => return Ok(node),
            };
            self.at += 1;
            if min > REPETITIONS_MAX || max.is_some_and(|max| max > REPETITIONS_MAX || max < min) {
                return Err(format!("a repetition over {REPETITIONS_MAX}, or from more to less"));
            }
            let greed = if self.takes(b"+") {
                Greed::Possessive
            } else if self.takes(b"?") != mode.ungreedy {
                Greed::Least
            } else {
                Greed::Most
            };
            node = Node::Repeat { node: Box::new(node), min, max, greed };
        }
    }

    /// `{2,5}`: leaves the place at its last byte. `None`: braces that mean themselves.
    fn braces(&mut self) -> Option<(u32, Option<u32>)> {
        let rest = &self.bytes[self.at + 1..];
        let len = rest.iter().position(|byte| *byte == b'}')?;
        let text = std::str::from_utf8(&rest[..len]).ok()?;
        let counts = match text.split_once(',') {
            None => text.parse().ok().map(|count| (count, Some(count)))?,
            Some((min, "")) => (min.parse().ok()?, None),
            Some((min, max)) => (min.parse().ok()?, Some(max.parse().ok()?)),
        };
        self.at += 1 + len;
        Some(counts)
    }
}
