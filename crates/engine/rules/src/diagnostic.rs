//! What the compiler has to say about a rule file. A code never changes its meaning once published.

use std::fmt;

use crate::Span;

/// One remark on one place. `Display` gives `error[BHR0014] line 3, column 20: ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub code: Code,
    pub severity: Severity,
    pub span: Span,
    /// Of the rule it belongs to, when that could be read.
    pub sid: Option<u32>,
    /// Lower case, user input in backticks.
    pub message: String,
    /// What stands at `span`, in two or three words.
    pub label: &'static str,
    /// What to do about it.
    pub help: Option<String>,
    pub fix: Option<Fix>,
}

/// Replace `span` by `text`, and the diagnostic goes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    pub span: Span,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The rule breaks the language and is not loaded: counted `wrong`.
    Error,
    /// The rule is well formed and needs something this engine does not have: counted `unsupported`.
    Unsupported,
    /// The rule is loaded; it may not do what its author thinks.
    Warning,
}

impl Severity {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Unsupported => "unsupported",
            Self::Warning => "warning",
        }
    }
}

macro_rules! codes {
    ($($name:ident = $number:literal $severity:ident $label:literal,)*) => {
        /// Stable number of each diagnostic.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($name,)* }

        impl Code {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// `BHR0014`
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => concat!("BHR", $number),)* }
            }

            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

codes! {
    // The frame of a rule.
    UnknownAction = "0001" Error "not an action",
    UnknownProtocol = "0002" Error "not a protocol",
    BadAddress = "0003" Error "not an address",
    BadPort = "0004" Error "not a port",
    BadDirection = "0005" Error "not a direction",
    HeaderIncomplete = "0006" Error "header ends here",
    NoOptions = "0007" Error "no options in parentheses",
    RuleTooLong = "0008" Error "too long",
    TooManyRules = "0009" Error "not read from here on",
    // Options in general.
    OptionUnterminated = "0010" Error "no `;` after this",
    UnknownKeyword = "0011" Error "not a keyword",
    ValueMissing = "0012" Error "needs a value",
    ValueUnexpected = "0013" Error "takes no value",
    BadValue = "0014" Error "not valid here",
    DuplicateOption = "0015" Error "given twice",
    MissingSid = "0016" Error "rule without a sid",
    DuplicateSid = "0017" Error "sid already used",
    // Content and its modifiers.
    BadContent = "0020" Error "not a content",
    ModifierWithoutContent = "0021" Error "nothing to modify",
    ModifierConflict = "0022" Error "contradicts an earlier modifier",
    BadPcre = "0023" Error "not a regular expression",
    EmptyBuffer = "0024" Error "buffer without a match",
    ProtocolConflict = "0025" Error "of another protocol",
    StickyConflict = "0026" Error "beside a sticky buffer",
    // Found when a rule set is compiled.
    UndefinedVariable = "0030" Error "not defined",
    BadVariable = "0031" Error "variable cannot be read",
    EmptySet = "0032" Warning "stands for nothing",
    BadClassification = "0033" Error "not a classification line",
    BadReference = "0034" Error "not a reference line",
    BadThresholdLine = "0035" Error "not a threshold line",
    BadMatcher = "0036" Error "not a line of this file",
    // Well formed, not built.
    KeywordUnsupported = "0100" Unsupported "not supported yet",
    ProtocolUnsupported = "0101" Unsupported "not supported yet",
    ActionUnsupported = "0102" Unsupported "not supported yet",
    PcreUnsupported = "0103" Unsupported "not supported by the regular expression engine",
    ValueUnsupported = "0104" Unsupported "not supported yet",
    LuaUnsupported = "0105" Unsupported "no scripts",
    RequirementUnmet = "0106" Unsupported "not met here",
    NoDatabase = "0107" Unsupported "needs a database that is not there",
    // Lints.
    NoMessage = "0200" Warning "no msg",
    UnknownClasstype = "0201" Warning "not in classification.config",
    RedundantModifier = "0202" Warning "has no effect",
    OlderRevision = "0203" Warning "replaced by a newer revision",
    NeverMatches = "0204" Warning "can never match",
    LateTransform = "0205" Warning "not directly after its buffer",
    MixedBuffers = "0206" Warning "names another buffer",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] line {}, column {}", self.severity.name(), self.code, self.span.line, self.span.column)?;
        if let Some(sid) = self.sid {
            write!(f, ", sid {sid}")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(help) = &self.help {
            write!(f, "; {help}")?;
        }
        Ok(())
    }
}

/// A finding before its place in the file is known: offsets are within the logical line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub code: Code,
    /// Byte range in the logical line; `None` means the whole option.
    pub at: Option<(usize, usize)>,
    pub message: String,
    pub help: Option<String>,
    /// What stands at `at` then.
    pub fix: Option<String>,
}

impl Problem {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, at: None, message: message.into(), help: None, fix: None }
    }

    /// At a place of the file.
    pub fn diagnostic(self, span: Span, sid: Option<u32>) -> Diagnostic {
        let fix = self.fix.map(|text| Fix { span, text });
        let (code, label) = (self.code, self.code.label());
        Diagnostic { code, severity: code.severity(), span, sid, message: self.message, label, help: self.help, fix }
    }

    /// What to write at the place instead.
    pub fn fix(mut self, text: impl Into<String>) -> Self {
        self.fix = Some(text.into());
        self
    }

    pub fn value(message: impl Into<String>) -> Self {
        Self::new(Code::BadValue, message)
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn at(mut self, start: usize, end: usize) -> Self {
        self.at = Some((start, end));
        self
    }
}
