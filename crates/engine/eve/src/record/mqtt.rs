//! `mqtt`: a message and those that answer it.

use bulkhead_ips::Record;
use serde_json::Value;

use super::{Entry, LogConfig, Object, tree};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MqttLog {
    /// `passwords`: those of clients are logged.
    pub passwords: bool,
    /// `string-log-limit`: bytes of topics and content of one message.
    pub text_bytes_max: usize,
}

impl Default for MqttLog {
    fn default() -> Self {
        Self { passwords: false, text_bytes_max: 1024 }
    }
}

pub(super) fn record(record: &Record, config: &LogConfig) -> Option<Entry> {
    let mut mqtt = tree(&record.notes);
    for message in mqtt.values_mut().filter_map(Value::as_object_mut) {
        if !config.mqtt.passwords {
            message.remove("password");
        }
        shorten(message, config.mqtt.text_bytes_max);
    }
    (!mqtt.is_empty()).then(|| Entry::of("mqtt", mqtt))
}

/// Topics and content together have so many bytes; what is more is counted.
fn shorten(message: &mut Object, bytes_max: usize) {
    let mut room = bytes_max;
    for key in ["topic", "message"] {
        if let Some(text) = message.get_mut(key) {
            cut(text, &mut room);
        }
    }
    let topics = message.get_mut("topics").and_then(Value::as_array_mut);
    for topic in topics.into_iter().flatten() {
        match topic {
            Value::Object(fields) => _ = fields.get_mut("topic").map(|text| cut(text, &mut room)),
            text => cut(text, &mut room),
        }
    }
}

fn cut(value: &mut Value, room: &mut usize) {
    let Value::String(text) = value else { return };
    if text.len() <= *room {
        *room -= text.len();
        return;
    }
    let mut end = *room;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    *text = format!("{}[truncated {} additional bytes]", &text[..end], text.len() - end);
    *room = 0;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_texts_are_cut_where_the_room_of_a_message_ends() {
        let mut message = json!({ "topics": [{ "topic": "topicX", "qos": 0 }, { "topic": "topicY", "qos": 0 }] });
        shorten(message.as_object_mut().expect("an object"), 10);
        assert_eq!(message["topics"][1]["topic"], "topi[truncated 2 additional bytes]");
        let mut message = json!({ "topic": "größe", "message": "abc" });
        shorten(message.as_object_mut().expect("an object"), 3);
        assert_eq!(
            (&message["topic"], &message["message"]),
            (&json!("gr[truncated 5 additional bytes]"), &json!("[truncated 3 additional bytes]"))
        );
    }
}
