//! `smtp` and `email`: a mail on its way.

use bulkhead_applayer::{Buffer, Dir};
use bulkhead_ips::Record;
use serde_json::{Value, json};

use super::{Entry, LogConfig, Object, put, text, tree};

pub(super) fn record(record: &Record, config: &LogConfig) -> Option<Entry> {
    let mut smtp = Object::new();
    put(&mut smtp, "helo", record, Buffer::SmtpHelo, Dir::ToServer);
    put(&mut smtp, "mail_from", record, Buffer::SmtpMailFrom, Dir::ToServer);
    let to: Vec<String> = record.all(Buffer::SmtpRcptTo, Dir::ToServer).map(text).collect();
    if !to.is_empty() {
        smtp.insert("rcpt_to".to_owned(), json!(to));
    }
    let mut objects = vec![("smtp", smtp)];
    let email = email(record, config);
    if !email.is_empty() {
        objects.push(("email", email));
    }
    Some(Entry { event_type: "smtp", objects })
}

fn email(record: &Record, config: &LogConfig) -> Object {
    let mut email = tree(&record.notes);
    for (of, key) in [("body", "body_md5"), ("subject", "subject_md5")] {
        if !config.smtp.md5.iter().any(|wanted| wanted == of) {
            email.remove(key);
        }
    }
    put(&mut email, "from", record, Buffer::EmailFrom, Dir::ToServer);
    for (name, buffer) in [("to", Buffer::EmailTo), ("cc", Buffer::EmailCc)] {
        let all: Vec<String> = record.all(buffer, Dir::ToServer).flat_map(addresses).collect();
        if !all.is_empty() {
            email.insert(name.to_owned(), json!(all));
        }
    }
    let files: Vec<String> = record.all(Buffer::FileName, Dir::ToServer).map(text).collect();
    if !files.is_empty() {
        email.insert("attachment".to_owned(), json!(files));
    }
    let further = [
        ("subject", Buffer::EmailSubject),
        ("date", Buffer::EmailDate),
        ("message_id", Buffer::EmailMessageId),
        ("x_mailer", Buffer::EmailXMailer),
    ];
    for (name, buffer) in further {
        if config.extended || config.smtp.custom.iter().any(|custom| custom == name) {
            put(&mut email, name, record, buffer, Dir::ToServer);
        }
    }
    let received: Vec<String> = record.all(Buffer::EmailReceived, Dir::ToServer).map(text).collect();
    if !received.is_empty() && (config.extended || config.smtp.custom.iter().any(|custom| custom == "received")) {
        email.insert("received".to_owned(), json!(received));
    }
    if !email.is_empty() && !email.contains_key("status") {
        email.insert("status".to_owned(), Value::from(if record.complete { "PARSE_DONE" } else { "BODY_STARTED" }));
    }
    email
}

/// `"Doe, J." <j@example.com>, b@example.com`: commas within quotes do not part them.
fn addresses(list: &[u8]) -> Vec<String> {
    let (mut all, mut from, mut quoted) = (Vec::new(), 0, false);
    for (at, byte) in list.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                all.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    all.push(&list[from..]);
    all.into_iter().map(|address| text(address.trim_ascii())).filter(|address| !address.is_empty()).collect()
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct SmtpLog {
    /// `md5`: `body`, `subject`.
    pub md5: Vec<String>,
    /// `custom`: further fields of the mail's header.
    pub custom: Vec<String>,
}
