//! The rules that the repository carries (`rules/malware`). What blocks is what no ordinary file has; the rest tells.

use crate::signatures::{Action, Compiler};

/// Name, text, and what its findings ask for.
pub const RULES: [(&str, &str, Action); 6] = [
    ("bulkhead/test-files.yar", include_str!("../../../../rules/malware/test-files.yar"), Action::Block),
    ("bulkhead/web-shells.yar", include_str!("../../../../rules/malware/web-shells.yar"), Action::Block),
    ("bulkhead/shells-and-droppers.yar", include_str!("../../../../rules/malware/shells-and-droppers.yar"), Action::Block),
    ("bulkhead/miners.yar", include_str!("../../../../rules/malware/miners.yar"), Action::Block),
    ("bulkhead/linux-programs.yar", include_str!("../../../../rules/malware/linux-programs.yar"), Action::Block),
    ("bulkhead/packed.yar", include_str!("../../../../rules/malware/packed.yar"), Action::Alert),
];

impl Compiler {
    /// Takes all of them.
    pub fn builtin(&mut self) {
        for (name, text, action) in RULES {
            self.yara(name, text, action);
        }
    }
}
