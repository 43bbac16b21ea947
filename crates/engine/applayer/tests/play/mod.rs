//! Plays a script of bytes through a session, and writes down what was told.

use bulkhead_applayer::{Buffer, Config, Context, Dir, Finished, Note, Protocol, Session, Sink, Transaction, Transport};

#[derive(Default)]
pub struct Told {
    /// `ID NAME VALUE`, `ID NAME=NUMBER`, `ID !EVENT` of transactions in the order in which they ended.
    pub lines: Vec<String>,
    /// `ID PATH=VALUE` of what is for the log: `0 interfaces[0].uuid=…`, lists that are written again go on.
    pub notes: Vec<String>,
    /// Of what streams: all bytes that were new, by transaction and the value's number in it.
    streams: Vec<(u64, &'static str, usize, Vec<u8>)>,
    /// `BASE BYTES` of `file.data`, as its window was at the end.
    #[allow(dead_code)] // Not every test file asks.
    pub windows: Vec<String>,
    pub protocols: Vec<Protocol>,
    pub finished: Option<Finished>,
}

impl Sink for Told {
    fn recognised(&mut self, protocol: Protocol) {
        self.protocols.push(protocol);
    }

    fn update(&mut self, tx: &mut Transaction, _: Dir) {
        for value in tx.news().filter(|value| value.is_stream()) {
            let window = tx.window(value);
            let number = tx.values().iter().position(|other| std::ptr::eq(other, value)).unwrap_or(usize::MAX);
            let fresh = &window.bytes[window.fresh..];
            match self.streams.iter_mut().find(|(id, _, of, _)| (*id, *of) == (tx.id, number)) {
                Some((.., bytes)) => bytes.extend_from_slice(fresh),
                None => self.streams.push((tx.id, value.buffer.name(), number, fresh.to_vec())),
            }
        }
    }

    fn complete(&mut self, tx: &mut Transaction) {
        for value in tx.values().iter().filter(|value| value.buffer == Buffer::FileData) {
            let window = tx.window(value);
            self.windows.push(format!("{} {}", window.base, text(window.bytes)));
        }
        for value in tx.values().iter().filter(|value| !value.is_stream()) {
            self.lines.push(format!("{} {} {}", tx.id, value.buffer.name(), text(tx.bytes(value))));
        }
        let streams = self.streams.iter().filter(|(id, ..)| *id == tx.id);
        self.lines.extend(streams.map(|(id, name, _, bytes)| format!("{id} {name} {}", text(bytes))));
        self.lines.extend(tx.integers().iter().map(|(field, _, value)| format!("{} {}={value}", tx.id, field.name())));
        self.lines.extend(tx.events().map(|(event, _)| format!("{} !{event}", tx.id)));
        self.notes.extend(paths(tx).into_iter().map(|path| format!("{} {path}", tx.id)));
    }

    fn event(&mut self, event: &'static str, _: Dir) {
        self.lines.push(format!("- !{event}"));
    }

    fn finished(&mut self, why: Finished) {
        self.finished = Some(why);
    }
}

impl Told {
    #[allow(dead_code)] // Not every test file asks.
    #[track_caller]
    pub fn expect(&self, wanted: &[&str]) {
        for line in wanted {
            assert!(self.lines.iter().any(|told| told == line), "{line:?} is not in {:#?}", self.lines);
        }
    }

    #[allow(dead_code)] // Not every test file asks.
    #[track_caller]
    pub fn expect_notes(&self, wanted: &[&str]) {
        for line in wanted {
            assert!(self.notes.iter().any(|told| told == line), "{line:?} is not in {:#?}", self.notes);
        }
    }

    #[allow(dead_code)] // Not every test file asks.
    pub fn events(&self) -> Vec<&str> {
        self.lines.iter().filter_map(|line| line.split_once(" !")).filter(|(id, _)| !id.contains(' ')).map(|(_, event)| event).collect()
    }
}

/// Notes with the way to each.
pub fn paths(tx: &Transaction) -> Vec<String> {
    let mut all = Vec::new();
    // How many each list has, as one that is written again goes on where it ended.
    let mut lists = std::collections::BTreeMap::<String, usize>::new();
    // The way to what is open, and in a list how many were before.
    let mut open: Vec<(String, Option<usize>)> = vec![(String::new(), None)];
    for note in tx.notes().iter() {
        let mut way = |key: &str| {
            let (way, index) = open.last_mut().expect("the tree itself");
            match index {
                Some(index) => {
                    *index += 1;
                    format!("{way}[{}]", *index - 1)
                }
                None if way.is_empty() => key.to_owned(),
                None => format!("{way}.{key}"),
            }
        };
        match note {
            Note::Number(key, value) => all.push(format!("{}={value}", way(key))),
            Note::Signed(key, value) => all.push(format!("{}={value}", way(key))),
            Note::Real(key, value) => all.push(format!("{}={value:?}", way(key))),
            Note::Truth(key, value) => all.push(format!("{}={value}", way(key))),
            Note::Text(key, value) => all.push(format!("{}={}", way(key), text(value))),
            Note::Pair(key, value) => all.push(format!("{}={}", way(&text(key)), text(value))),
            Note::Object(key) => {
                let way = way(key);
                open.push((way, None));
            }
            Note::List(key) => {
                let way = way(key);
                let count = lists.get(&way).copied().unwrap_or(0);
                open.push((way, Some(count)));
            }
            Note::End => {
                let (way, index) = open.pop().filter(|_| !open.is_empty()).expect("an end to each beginning, and no more");
                lists.extend(index.map(|index| (way, index)));
            }
        }
    }
    all
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// `cuts`: lengths of the pieces, in turn; none: whole.
#[allow(dead_code)] // Not every test file asks.
pub fn play(transport: Transport, script: &[(Dir, Vec<u8>)], cuts: &[usize]) -> Told {
    let (mut context, mut told, mut session) = (Context::new(Config::default()), Told::default(), Session::new(transport));
    let mut cuts = cuts.iter().cycle();
    for (dir, bytes) in script {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cuts.next().copied().unwrap_or(usize::MAX).clamp(1, rest.len()));
            session.data(*dir, now, &mut context, &mut told);
            rest = later;
        }
    }
    session.close(&mut context, &mut told);
    told
}

/// A script as the fuzz body reads it: pieces of at most `cut` bytes behind their lengths; `damage`: places and other bytes for them.
#[allow(dead_code)] // Not every test file asks.
pub fn framed(script: &[(Dir, Vec<u8>)], cut: usize, damage: &[(usize, u8)]) -> Vec<u8> {
    let mut framed = Vec::new();
    for (dir, bytes) in script.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let mut bytes = bytes.clone();
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = *byte;
        }
        for piece in bytes.chunks(cut.min(127)) {
            framed.push((piece.len() as u8) << 1 | *dir as u8);
            framed.extend_from_slice(piece);
        }
    }
    framed
}

/// The corpus of the fuzz body has this file; with `BULKHEAD_BLESS` set it is written.
#[allow(dead_code)] // Not every test file asks.
#[track_caller]
pub fn assert_corpus(name: &str, bytes: &[u8]) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    if std::env::var_os("BULKHEAD_BLESS").is_some() {
        std::fs::write(&path, bytes).expect("the corpus can be written");
    }
    assert!(std::fs::read(&path).is_ok_and(|found| found == bytes), "{} is not what the test has now", path.display());
}
