//! Logical signatures: patterns joined by a boolean expression with counts.

use std::fmt::Write;

use super::{LEVEL, Refused, Target, body};

/// Patterns of one signature; ClamAV's own limit.
const PATTERNS_MAX: usize = 64;
/// Parentheses in parentheses.
const DEPTH_MAX: usize = 16;

pub(super) struct Translated {
    pub name: String,
    pub target: Target,
    /// Between the braces of a YARA rule.
    pub rule: String,
}

pub(super) fn translate(line: &str) -> Result<Translated, Refused> {
    let mut fields = line.split(';');
    let (name, block, expression) = (fields.next().unwrap_or(""), fields.next(), fields.next());
    let (Some(block), Some(expression)) = (block, expression) else {
        return Err(Refused::wrong("a line is `name;block;expression;pattern`"));
    };
    if name.is_empty() {
        return Err(Refused::wrong("a signature has a name"));
    }
    let Block { target, mut also } = block_of(block)?;
    let texts: Vec<&str> = fields.collect();
    if texts.is_empty() || texts.len() > PATTERNS_MAX {
        return Err(Refused::wrong("a signature has between 1 and 64 patterns"));
    }
    let mut strings = String::new();
    let mut conditions = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        let (declared, condition) = pattern(number, text, target)?;
        let _ = write!(strings, "{declared} ");
        conditions.push(condition);
    }
    let mut parser = Parser { text: expression.as_bytes(), at: 0, conditions: &conditions, used: vec![false; conditions.len()] };
    let condition = parser.any(0)?.condition;
    if parser.at != parser.text.len() {
        return Err(Refused::wrong(format!("the expression ends at character {}", parser.at + 1)));
    }
    // YARA refuses a rule with a pattern that it does not use.
    for (number, _) in parser.used.iter().enumerate().filter(|(_, used)| !**used) {
        also.push(format!("#s{number} >= 0"));
    }
    let also: String = also.iter().map(|condition| format!(" and {condition}")).collect();
    Ok(Translated { name: name.to_owned(), target, rule: format!("strings: {strings}condition: ({condition}){also}") })
}

struct Block {
    target: Target,
    also: Vec<String>,
}

/// `Engine:81-255,Target:1,FileSize:100-200`
fn block_of(text: &str) -> Result<Block, Refused> {
    let mut block = Block { target: Target::Any, also: Vec::new() };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once(':').ok_or_else(|| Refused::wrong(format!("`{part}` is not `key:value`")))?;
        match key {
            "Target" => block.target = Target::of(value)?,
            "Engine" => {
                let (oldest, newest) = range(value)?;
                if oldest > u64::from(LEVEL) || newest < u64::from(LEVEL) {
                    return Err(Refused::Level);
                }
            }
            "FileSize" => {
                let (least, most) = range(value)?;
                block.also.push(format!("filesize >= {least} and filesize <= {most}"));
            }
            "NumberOfSections" => {
                let (least, most) = range(value)?;
                block.also.push(format!("pe.number_of_sections >= {least} and pe.number_of_sections <= {most}"));
            }
            "EntryPoint" => {
                let (first, last) = range(value)?;
                block.also.push(format!("pe.entry_point >= {first} and pe.entry_point <= {last}"));
            }
            "Container" | "Intermediates" => return Err(Refused::unsupported("conditions on what it lies in")),
            "IconGroup1" | "IconGroup2" => return Err(Refused::unsupported("icons")),
            "HandlerType" => return Err(Refused::unsupported("handlers")),
            _ => return Err(Refused::wrong(format!("there is no `{key}` in the block"))),
        }
    }
    Ok(block)
}

fn range(text: &str) -> Result<(u64, u64), Refused> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| Refused::wrong(format!("`{text}` is not a number")));
    match text.split_once('-') {
        Some((least, most)) => Ok((number(least)?, number(most)?)),
        None => number(text).map(|only| (only, only)),
    }
}

/// How one pattern is declared, and what stands for it in a condition.
fn pattern(number: usize, text: &str, target: Target) -> Result<(String, Condition), Refused> {
    let name = format!("s{number}");
    if text.starts_with("fuzzy_img#") {
        return Err(Refused::unsupported("fuzzy hashes of images"));
    }
    if text.starts_with("${") {
        return Err(Refused::unsupported("macros"));
    }
    if text.contains('#') && text.contains('(') {
        return Err(Refused::unsupported("comparisons of bytes"));
    }
    if let Some((trigger, rest)) = text.split_once('/') {
        return expression_pattern(&name, trigger, rest, target);
    }
    let (text, modifiers) = match text.split_once("::") {
        Some((text, letters)) => (text, modifiers(letters)?),
        None => (text, body::Modifiers::default()),
    };
    let (place, hex) = text.split_once(':').unwrap_or(("*", text));
    let place = body::offset(place, target)?;
    let declared = body::pattern(&name, hex, modifiers)?;
    let held = place.one_of(&format!("${name}"));
    Ok((declared, Condition { held, counted: place.is_anywhere().then(|| format!("#{name}")) }))
}

fn modifiers(letters: &str) -> Result<body::Modifiers, Refused> {
    let mut modifiers = body::Modifiers::default();
    for letter in letters.chars() {
        match letter {
            'i' => modifiers.nocase = true,
            'w' => modifiers.wide = true,
            'a' => modifiers.ascii = true,
            'f' => modifiers.fullword = true,
            _ => return Err(Refused::wrong(format!("there is no modifier `{letter}`"))),
        }
    }
    Ok(modifiers)
}

/// `trigger/expression/flags`: the expression is looked for where the trigger, an expression over the patterns before it, holds.
fn expression_pattern(name: &str, trigger: &str, rest: &str, target: Target) -> Result<(String, Condition), Refused> {
    let (expression, flags) = rest.rsplit_once('/').ok_or_else(|| Refused::wrong("a regular expression ends with `/`"))?;
    let (place, trigger) = trigger.split_once(':').unwrap_or(("*", trigger));
    let place = body::offset(place, target)?;
    let mut words = String::new();
    for flag in flags.chars() {
        match flag {
            'i' | 's' if !words.contains(flag) => words.push(flag),
            // All matches, instead of one: what a condition needs is found anyway.
            'g' | 'i' | 's' => {}
            _ => return Err(Refused::unsupported("flags of a regular expression")),
        }
    }
    // The trigger has no patterns after its own: their numbers are what it may name, and `0` stands for all that is asked there.
    if !trigger.bytes().all(|byte| byte.is_ascii_digit() || b"()&|=<>,".contains(&byte)) {
        return Err(Refused::wrong("a trigger is an expression over the patterns"));
    }
    let held = place.one_of(&format!("${name}"));
    Ok((
        format!("${name} = /{}/{words}", expression.replace("\\/", "/").replace('/', "\\/")),
        Condition { held: format!("(<{trigger}>) and {held}"), counted: None },
    ))
}

#[derive(Debug, Clone)]
struct Condition {
    held: String,
    /// A number of matches, where that can be said.
    counted: Option<String>,
}

/// One part of an expression.
struct Part {
    condition: String,
    /// Patterns in it, if it is no more than a choice among them.
    choice: Option<Vec<usize>>,
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    conditions: &'a [Condition],
    used: Vec<bool>,
}

impl Parser<'_> {
    fn any(&mut self, depth: usize) -> Result<Part, Refused> {
        if depth > DEPTH_MAX {
            return Err(Refused::wrong("the expression has more than 16 parentheses in one another"));
        }
        let mut part = self.one(depth)?;
        while let Some(joint @ (b'|' | b'&')) = self.text.get(self.at).copied() {
            self.at += 1;
            let other = self.one(depth)?;
            let word = if joint == b'|' { "or" } else { "and" };
            part.condition = format!("{} {word} {}", part.condition, other.condition);
            // ClamAV reads from left to right, without precedence.
            part.condition = format!("({})", part.condition);
            part.choice = match (joint, part.choice, other.choice) {
                (b'|', Some(mut all), Some(more)) => {
                    all.extend(more);
                    Some(all)
                }
                _ => None,
            };
        }
        Ok(part)
    }

    fn one(&mut self, depth: usize) -> Result<Part, Refused> {
        let part = if self.text.get(self.at) == Some(&b'(') {
            self.at += 1;
            let part = self.any(depth + 1)?;
            if self.text.get(self.at) != Some(&b')') {
                return Err(Refused::wrong("a parenthesis has no end"));
            }
            self.at += 1;
            part
        } else {
            let number = self.number()? as usize;
            let Some(condition) = self.conditions.get(number) else {
                return Err(Refused::wrong(format!("there is no pattern {number}")));
            };
            self.used[number] = true;
            Part { condition: self.triggered(number, condition.held.clone(), depth)?, choice: Some(vec![number]) }
        };
        self.count(part)
    }

    /// Puts a trigger's own expression in where a pattern has one.
    fn triggered(&mut self, number: usize, held: String, depth: usize) -> Result<String, Refused> {
        let Some((before, rest)) = held.split_once("(<") else { return Ok(held) };
        let Some((trigger, after)) = rest.split_once(">)") else { return Ok(held) };
        if depth >= DEPTH_MAX {
            return Err(Refused::wrong("triggers name one another"));
        }
        let mut inner =
            Parser { text: trigger.as_bytes(), at: 0, conditions: &self.conditions[..number], used: std::mem::take(&mut self.used) };
        let parsed = inner.any(depth + 1);
        let whole = inner.at == inner.text.len();
        self.used = inner.used;
        let condition = parsed?.condition;
        if !whole {
            return Err(Refused::wrong("a trigger is an expression over the patterns before it"));
        }
        Ok(format!("({before}({condition}){after})"))
    }

    /// `=n`, `>n`, `<n`, each perhaps with `,m`: how many different ones.
    fn count(&mut self, part: Part) -> Result<Part, Refused> {
        let Some(sign @ (b'=' | b'>' | b'<')) = self.text.get(self.at).copied() else { return Ok(part) };
        self.at += 1;
        let wanted = self.number()?;
        let different = if self.text.get(self.at) == Some(&b',') {
            self.at += 1;
            Some(self.number()?)
        } else {
            None
        };
        let Some(choice) = part.choice else { return Err(Refused::unsupported("counts of expressions")) };
        if sign == b'=' && wanted == 0 && different.is_none() {
            return Ok(Part { condition: format!("not ({})", part.condition), choice: None });
        }
        let counts: Option<Vec<String>> = choice.iter().map(|number| self.conditions[*number].counted.clone()).collect();
        let Some(counts) = counts else { return Err(Refused::unsupported("counts of patterns with a place")) };
        let sign = if sign == b'=' {
            "=="
        } else if sign == b'>' {
            ">"
        } else {
            "<"
        };
        let mut condition = format!("({} {sign} {wanted})", counts.join(" + "));
        if let Some(different) = different {
            let names: Vec<String> = choice.iter().map(|number| format!("$s{number}")).collect();
            condition = format!("({condition} and {different} of ({}))", names.join(", "));
        }
        Ok(Part { condition, choice: None })
    }

    fn number(&mut self) -> Result<u32, Refused> {
        let digits = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let text = std::str::from_utf8(&self.text[self.at..self.at + digits]).unwrap_or("");
        let number =
            text.parse().map_err(|_| Refused::wrong(format!("a number is expected at character {} of the expression", self.at + 1)))?;
        self.at += digits;
        Ok(number)
    }
}
