use super::*;
use std::net::Shutdown;
use std::time::Duration;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A call to an engine that reads the request, sends exactly `bytes`, and closes.
fn call(bytes: Vec<u8>) -> Call {
    let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    std::thread::spawn(move || {
        let mut sink = [0; 4096];
        let _ = theirs.read(&mut sink);
        let _ = theirs.write_all(&bytes);
        let _ = theirs.shutdown(Shutdown::Write);
        while theirs.read(&mut sink).is_ok_and(|count| count > 0) {}
    });
    Call::open(ours, "/a.B/C", &[("k", "v")], b"question", soon()).expect("a request that is sent")
}

fn settings() -> Vec<u8> {
    let mut bytes = Vec::new();
    frame(&mut bytes, kind::SETTINGS, 0, 0, &[]);
    frame(&mut bytes, kind::SETTINGS, flag::ACK, 0, &[]);
    frame(&mut bytes, kind::WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]);
    bytes
}

fn headers(bytes: &mut Vec<u8>, flags: u8, fields: &[(&str, &str)]) {
    let mut block = Vec::new();
    for (name, value) in fields {
        hpack::encode(&mut block, name, value);
    }
    frame(bytes, kind::HEADERS, flags | flag::END_HEADERS, STREAM, &block);
}

fn data(bytes: &mut Vec<u8>, message: &[u8]) {
    let mut payload = vec![0];
    payload.extend_from_slice(&(message.len() as u32).to_be_bytes());
    payload.extend_from_slice(message);
    for part in payload.chunks(FRAME_BYTES_MAX) {
        frame(bytes, kind::DATA, 0, STREAM, part);
    }
}

fn sound_answer(messages: &[&[u8]]) -> Vec<u8> {
    let mut bytes = settings();
    headers(&mut bytes, 0, &[(":status", "200"), ("content-type", "application/grpc")]);
    for message in messages {
        data(&mut bytes, message);
    }
    frame(&mut bytes, kind::PING, 0, 0, b"12345678");
    headers(&mut bytes, flag::END_STREAM, &[("grpc-status", "0"), ("grpc-message", "")]);
    bytes
}

#[test]
fn messages_come_one_by_one_and_then_the_end() {
    let long = vec![7; 100_000];
    let mut call = call(sound_answer(&[b"one", b"", &long]));
    assert_eq!(call.next(200_000, soon()), Ok(Some(b"one".to_vec())));
    assert_eq!(call.next(200_000, soon()), Ok(Some(Vec::new())));
    assert_eq!(call.next(200_000, soon()), Ok(Some(long)));
    assert_eq!(call.next(200_000, soon()), Ok(None));
    assert_eq!(call.next(200_000, soon()), Ok(None));
}

#[test]
fn a_refusal_carries_the_engines_words() {
    let mut bytes = settings();
    headers(&mut bytes, flag::END_STREAM, &[(":status", "200"), ("grpc-status", "12"), ("grpc-message", "unknown service a.B")]);
    let outcome = call(bytes).next(100, soon());
    assert_eq!(outcome, Err(Error::Status { code: 12, message: "unknown service a.B".into() }));
}

#[test]
fn a_header_block_may_come_in_pieces_and_with_padding() {
    let mut bytes = settings();
    let mut block = Vec::new();
    hpack::encode(&mut block, ":status", "200");
    let (first, second) = block.split_at(3);
    let mut padded = vec![4];
    padded.extend_from_slice(&[0, 0, 0, 0, 16]);
    padded.extend_from_slice(first);
    padded.extend_from_slice(&[0; 4]);
    frame(&mut bytes, kind::HEADERS, flag::PADDED | flag::PRIORITY, STREAM, &padded);
    frame(&mut bytes, kind::CONTINUATION, flag::END_HEADERS, STREAM, second);
    frame(&mut bytes, kind::DATA, flag::PADDED, STREAM, &[2, 0, 0, 0, 0, 1, b'x', 9, 9]);
    headers(&mut bytes, flag::END_STREAM, &[("grpc-status", "0")]);
    let mut call = call(bytes);
    assert_eq!(call.next(100, soon()), Ok(Some(b"x".to_vec())));
    assert_eq!(call.next(100, soon()), Ok(None));
}

#[test]
fn an_answer_cut_anywhere_is_an_error() {
    let whole = sound_answer(&[b"one"]);
    for end in 0..whole.len() {
        let mut call = call(whole.get(..end).expect("within").to_vec());
        let mut outcome = call.next(100, soon());
        if outcome == Ok(Some(b"one".to_vec())) {
            outcome = call.next(100, soon());
        }
        assert!(matches!(outcome, Err(Error::Closed)), "cut at {end}: {outcome:?}");
    }
}

#[test]
fn each_way_to_break_the_protocol_has_its_error() {
    let broken = |build: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = settings();
        build(&mut bytes);
        call(bytes).next(1000, soon())
    };
    for (what, outcome) in [
        ("not HTTP/2", call(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).next(10, soon())),
        ("frame too long", broken(&|bytes| frame(bytes, kind::DATA, 0, STREAM, &[0; FRAME_BYTES_MAX + 1]))),
        ("message too long", broken(&|bytes| frame(bytes, kind::DATA, 0, STREAM, &[0, 0, 0, 4, 0]))),
        ("compressed", broken(&|bytes| frame(bytes, kind::DATA, 0, STREAM, &[1, 0, 0, 0, 0]))),
        ("foreign stream", broken(&|bytes| frame(bytes, kind::DATA, 0, 3, b"x"))),
        ("push", broken(&|bytes| frame(bytes, kind::PUSH_PROMISE, 0, STREAM, &[0; 4]))),
        ("lone continuation", broken(&|bytes| frame(bytes, kind::CONTINUATION, 0, STREAM, &[]))),
        ("padding", broken(&|bytes| frame(bytes, kind::DATA, flag::PADDED, STREAM, &[9, 1]))),
        ("no padding length", broken(&|bytes| frame(bytes, kind::DATA, flag::PADDED, STREAM, &[]))),
        ("short ping", broken(&|bytes| frame(bytes, kind::PING, 0, 0, b"1"))),
        ("status", broken(&|bytes| headers(bytes, 0, &[(":status", "502")]))),
        ("no status at the end", broken(&|bytes| headers(bytes, flag::END_STREAM, &[(":status", "200")]))),
        ("status no number", broken(&|bytes| headers(bytes, flag::END_STREAM, &[("grpc-status", "x")]))),
        ("reset", broken(&|bytes| frame(bytes, kind::RST_STREAM, 0, STREAM, &[0; 4]))),
        ("go away", broken(&|bytes| frame(bytes, kind::GOAWAY, 0, 0, &[0; 8]))),
        (
            "endless headers",
            broken(&|bytes| {
                frame(bytes, kind::HEADERS, 0, STREAM, &[0x88]);
                for _ in 0..5 {
                    frame(bytes, kind::CONTINUATION, 0, STREAM, &[0x88; FRAME_BYTES_MAX]);
                }
            }),
        ),
        (
            "a frame between headers",
            broken(&|bytes| {
                frame(bytes, kind::HEADERS, 0, STREAM, &[0x88]);
                frame(bytes, kind::DATA, 0, STREAM, &[0; 5]);
            }),
        ),
        ("flood", broken(&|bytes| (0..=IDLE_FRAMES_MAX).for_each(|_| frame(bytes, kind::WINDOW_UPDATE, 0, 0, &[0; 4])))),
    ] {
        assert!(matches!(outcome, Err(Error::Malformed(_) | Error::TooLarge { .. } | Error::Closed)), "{what}: {outcome:?}");
        assert_eq!(outcome == Err(Error::Closed), matches!(what, "reset" | "go away"), "{what}: {outcome:?}");
    }
}

#[test]
fn silence_is_a_timeout_and_the_call_goes_on_after_it() {
    let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    let mut call = Call::open(ours, "/a.B/C", &[], b"", soon()).expect("sent");
    assert_eq!(call.next(100, Instant::now() + Duration::from_millis(20)), Err(Error::Timeout));
    let answer = sound_answer(&[b"late"]);
    let (first, second) = answer.split_at(20);
    theirs.write_all(first).expect("room");
    assert_eq!(call.next(100, Instant::now() + Duration::from_millis(20)), Err(Error::Timeout));
    theirs.write_all(second).expect("room");
    assert_eq!(call.next(100, soon()), Ok(Some(b"late".to_vec())));
    assert_eq!(call.next(100, soon()), Ok(None));
}

#[test]
fn random_frames_never_panic_and_always_end() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..300 {
        let mut bytes = Vec::new();
        for _ in 0..random() % 12 {
            let payload: Vec<u8> = (0..random() % 24).map(|_| (random() % 40) as u8).collect();
            frame(&mut bytes, (random() % 11) as u8, random() as u8, (random() % 3) as u32, &payload);
        }
        let mut call = call(bytes);
        while let Ok(Some(_)) = call.next(64, soon()) {}
    }
}
