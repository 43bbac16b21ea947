//! flow, flowbits, noalert.

use super::{Args, Keyword, Value, keyword};
use crate::diagnostic::{Code, Problem};
use crate::tree::{Body, FlowWord, Flowbits, FlowbitsOperation};

pub(super) const KEYWORDS: &[Keyword] = &[
    keyword("flow", Value::Required, false, flow),
    keyword("flowbits", Value::Required, false, flowbits),
    keyword("noalert", Value::None, false, |_| Ok(Body::Noalert)),
    keyword("alert", Value::None, false, |_| Ok(Body::Effect(Box::new(crate::condition::Effect::Alert)))),
];

/// Names in one flowbits; the reference engine has 100.
const NAMES_MAX: usize = 100;

const WORDS: &[(&str, FlowWord)] = &[
    ("established", FlowWord::Established),
    ("not_established", FlowWord::NotEstablished),
    ("stateless", FlowWord::Stateless),
    ("to_server", FlowWord::ToServer),
    ("to_client", FlowWord::ToClient),
    ("from_server", FlowWord::FromServer),
    ("from_client", FlowWord::FromClient),
    ("only_stream", FlowWord::OnlyStream),
    ("no_stream", FlowWord::NoStream),
    ("only_frag", FlowWord::OnlyFrag),
    ("no_frag", FlowWord::NoFrag),
];

impl FlowWord {
    pub fn name(self) -> &'static str {
        WORDS.iter().find(|(_, word)| *word == self).map_or("", |(name, _)| name)
    }

    /// The same thing said from the other end.
    const fn canonical(self) -> Self {
        match self {
            Self::FromClient => Self::ToServer,
            Self::FromServer => Self::ToClient,
            other => other,
        }
    }
}

fn flow(args: &Args<'_>) -> Result<Body, Problem> {
    let mut words: Vec<FlowWord> = Vec::new();
    for member in args.list() {
        let lower = member.to_ascii_lowercase();
        let Some((_, word)) = WORDS.iter().find(|(name, _)| *name == lower) else {
            return Err(Problem::value(format!("`{}` is not a word of flow", crate::header::shorten(member)))
                .help("use established, not_established, stateless, to_server, to_client, only_stream, no_stream, only_frag, no_frag"));
        };
        for earlier in &words {
            if earlier.canonical() == word.canonical() {
                return Err(Problem::new(Code::DuplicateOption, format!("`{member}` is said twice in one flow")));
            }
            let pair = (earlier.canonical(), word.canonical());
            let states = [FlowWord::Established, FlowWord::NotEstablished, FlowWord::Stateless];
            let contradicts = [
                [FlowWord::ToServer, FlowWord::ToClient],
                [FlowWord::OnlyStream, FlowWord::NoStream],
                [FlowWord::OnlyFrag, FlowWord::NoFrag],
            ]
            .iter()
            .any(|two| two.contains(&pair.0) && two.contains(&pair.1))
                || (states.contains(&pair.0) && states.contains(&pair.1));
            if contradicts {
                return Err(Problem::new(Code::ModifierConflict, format!("`{}` and `{member}` exclude each other", earlier.name())));
            }
        }
        words.push(*word);
    }
    Ok(Body::Flow(words))
}

fn flowbits(args: &Args<'_>) -> Result<Body, Problem> {
    let (operation, names) = match args.value.split_once(',') {
        Some((operation, names)) => (operation.trim(), names.trim()),
        None => (args.value, ""),
    };
    let operation = match operation {
        "noalert" if names.is_empty() => return Ok(Body::Noalert),
        "set" => FlowbitsOperation::Set,
        "unset" => FlowbitsOperation::Unset,
        "toggle" => FlowbitsOperation::Toggle,
        "isset" => FlowbitsOperation::IsSet,
        "isnotset" => FlowbitsOperation::IsNotSet,
        _ => return Err(args.bad().help("use set, unset, toggle, isset, isnotset or noalert")),
    };
    let names: Vec<String> = names.split('|').map(|name| name.trim().to_owned()).take(NAMES_MAX + 1).collect();
    if names.len() > NAMES_MAX {
        return Err(Problem::value(format!("more than {NAMES_MAX} names in one flowbits")));
    }
    if names.iter().any(|name| name.is_empty() || name.contains(char::is_whitespace)) {
        return Err(args.bad().help("write flowbits:set,NAME;"));
    }
    if names.len() > 1 && !matches!(operation, FlowbitsOperation::IsSet | FlowbitsOperation::IsNotSet) {
        return Err(args.bad().help("only isset and isnotset take more than one name"));
    }
    Ok(Body::Flowbits(Flowbits { operation, names }))
}
