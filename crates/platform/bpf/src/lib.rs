//! Loads the kernel tier (bpf/*.bpf.c), owns its maps and links, and tells by trying which hooks a kernel has.
//! Knows nothing of rules, workloads or events: numbers and bytes only.

pub mod guard;
pub mod layout;
pub mod path;
pub mod probe;

pub use guard::Guard;
// Links are handed out as libbpf's own type.
pub use libbpf_rs;
pub use path::{Attachment, PathMaps, PathObject, PathOptions};

/// What went wrong, while doing what. Always the operator's kernel or ours; never a packet's fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing}: {source}")]
    Bpf {
        doing: String,
        #[source]
        source: libbpf_rs::Error,
    },
    #[error("{doing}: {source}")]
    Os {
        doing: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the object has no {kind} named {name}")]
    Missing { kind: &'static str, name: &'static str },
    #[error("map {name} holds values of {found} bytes, this program expects {expected}: another version left it")]
    Layout { name: &'static str, found: usize, expected: usize },
}

pub type Result<T> = std::result::Result<T, Error>;

trait Doing<T> {
    fn doing(self, what: impl Into<String>) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, libbpf_rs::Error> {
    fn doing(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Bpf { doing: what.into(), source })
    }
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Os { doing: what.into(), source })
    }
}

/// libbpf writes its warnings to stderr unless told otherwise; the caller gets the last of them instead.
pub fn quiet() {
    libbpf_rs::set_print(None);
}
