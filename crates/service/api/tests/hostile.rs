//! Clients that send rubbish, hang, ask for too much, come in crowds, or may not come at all.

mod kit;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use bulkhead_api::server::{BODY_BYTES_MAX, CALLS_MAX, CONNECTIONS_MAX, HEADER_BYTES_MAX};
use bulkhead_api::{ClientError, ErrorCode, GroupAccess, Server, ServerConfig, ServerError};
use kit::{Lab, TestDir, read_all};

#[test]
fn rubbish_is_refused_and_the_next_client_served() {
    let lab = Lab::start();
    let mut long_line = b"GET /".to_vec();
    long_line.extend(vec![b'a'; HEADER_BYTES_MAX * 4]);
    let mut many_headers = b"GET /v1/status HTTP/1.1\r\nhost: x\r\n".to_vec();
    (0..500).for_each(|number| many_headers.extend(format!("x{number}: 1\r\n").bytes()));
    many_headers.extend(b"\r\n");
    let noise: Vec<u8> = (0..100_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let rubbish: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"\r\n\r\n\r\n".to_vec(),
        b"\0\0\0\0".to_vec(),
        b"hello\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET /v1/status HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /v1/status HTTP/1.1\r\nhost: x\r\ncontent-length: 12345678901234567890123\r\n\r\n".to_vec(),
        b"GET /v1/status HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\nxyz".to_vec(),
        b"PUT /v1/mode HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzzzz\r\n".to_vec(),
        b"PUT /v1/mode HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{}".to_vec(),
        b"GET /v1/events?%ff%fe=%zz HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"GET /v1/events?workload=%00%0a HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        long_line,
        many_headers,
        noise,
    ];
    for bytes in rubbish {
        let answer = lab.send(&bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 505");
        // The head is in order, and nobody asks for the body.
        let harmless =
            bytes.starts_with(b"GET /v1/status HTTP/1.1\r\nhost: x\r\ntransfer-encoding") || bytes.starts_with(b"GET /v1/events?workload=");
        assert!(refused || harmless && answer.starts_with("HTTP/1.1 200 "), "{shown}: {answer}");
        lab.client().status().unwrap();
    }
}

#[test]
fn a_body_larger_than_the_limit_is_refused_before_it_is_read() {
    let lab = Lab::start();
    let mut stream = lab.raw();
    write!(stream, "PUT /v1/policy HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", BODY_BYTES_MAX + 1).unwrap();
    let answer = read_all(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("too-large"), "{answer}");
    // Without a length it is found out on the way.
    let mut stream = lab.raw();
    write!(stream, "PUT /v1/policy HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let chunk = vec![b'#'; 65_536];
    for _ in 0..=BODY_BYTES_MAX / chunk.len() {
        if write!(stream, "{:x}\r\n", chunk.len()).and_then(|()| stream.write_all(&chunk)).and_then(|()| stream.write_all(b"\r\n")).is_err()
        {
            break;
        }
    }
    assert_eq!(*lab.agent.policy.lock().unwrap(), "mode: monitor\n");
    let text = format!("# {}\nmode: protect\n", "x".repeat(BODY_BYTES_MAX - 20));
    assert!(lab.client().apply_policy(&text).unwrap().applied, "one of just the size is taken");
}

#[test]
fn clients_that_connect_and_say_nothing_are_limited_and_sent_away() {
    let lab = Lab::start();
    let mut silent: Vec<_> = (0..CONNECTIONS_MAX).map(|_| lab.raw()).collect();
    // The server takes connections in order: when this one is refused, all before it have their place.
    let turned_away = read_all(&mut lab.raw());
    assert!(turned_away.starts_with("HTTP/1.1 503 ") && turned_away.contains("too many connections"), "{turned_away}");
    match lab.client().status() {
        Err(ClientError::Api(error)) => assert_eq!(error.code, ErrorCode::Busy),
        other => panic!("{other:?}"),
    }
    // None of them ever says a word, and all are closed by the server.
    for stream in &mut silent {
        let answer = read_all(stream);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    lab.client().status().unwrap();
    let failed = lab.client().metrics().unwrap().into_iter().find(|metric| metric.name == "bulkhead_api_connections_failed_total").unwrap();
    let by_reason = |reason: &str| failed.samples.iter().find(|sample| sample.labels["reason"] == reason).unwrap().value;
    assert_eq!(by_reason("refused"), 2.0);
    assert_eq!(by_reason("broken"), CONNECTIONS_MAX as f64);
}

#[test]
fn a_body_that_never_ends_a_reader_that_never_reads_and_an_agent_that_hangs_cost_their_time_and_no_more() {
    let lab = Lab::start();
    // An answer of several hundred kilobytes that is asked for and not read.
    (0..2000).for_each(|sid| lab.agent.send(kit::alert(sid)));
    lab.agent.store.flush().unwrap();
    let mut unread = lab.raw();
    unread.write_all(b"GET /v1/events?limit=2000 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    // A body that is announced and does not come.
    let mut bodiless = lab.raw();
    bodiless.write_all(b"PUT /v1/mode HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").unwrap();
    // An agent that hangs over one question, asked more often than it can be asked at a time.
    lab.agent.hang(true);
    let hanging: Vec<_> = (0..CALLS_MAX + 2)
        .map(|_| {
            let client = lab.client();
            std::thread::spawn(move || client.workloads())
        })
        .collect();
    for thread in hanging {
        match thread.join().unwrap() {
            Err(ClientError::Api(error)) => assert_eq!(error.code, ErrorCode::Busy),
            other => panic!("{other:?}"),
        }
    }
    let answer = read_all(&mut bodiless);
    assert!(answer.is_empty(), "cut off: {answer}");
    // Opened before, so its time is over too; what the kernel had buffered is there, the rest is not.
    let answer = read_all(&mut unread);
    assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.ends_with("]\n"), "{} bytes", answer.len());
    lab.agent.hang(false);
    assert_eq!(lab.client().workloads().unwrap().len(), 3, "the places come back with the agent");
}

#[test]
fn a_crowd_is_served_one_after_the_other() {
    let lab = Lab::start();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let client = lab.client();
                for _ in 0..25 {
                    assert_eq!(client.status().unwrap().pid, 4711);
                }
            });
        }
    });
}

#[test]
fn the_socket_is_root_s_alone_and_goes_with_the_server() {
    let mut lab = Lab::start();
    let found = fs::symlink_metadata(lab.server.socket()).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert!(!lab.server.group_found());
    let path = lab.server.socket().to_owned();
    lab.server.stop();
    assert!(!path.exists());
    let left: Vec<_> = fs::read_dir(lab.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".bulkhead"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_dead_socket_is_replaced_a_live_one_respected_and_a_file_left_alone() {
    let lab = Lab::start();
    let in_use = ServerConfig { socket: lab.server.socket().to_owned(), ..ServerConfig::default() };
    assert!(matches!(Server::start(&in_use, lab.agent.clone()), Err(ServerError::InUse { .. })));
    lab.client().status().unwrap();
    let dir = TestDir::new();
    let dead = dir.path().join("dead");
    drop(UnixListener::bind(&dead).unwrap());
    let server = Server::start(&ServerConfig { socket: dead.clone(), ..ServerConfig::default() }, lab.agent.clone()).unwrap();
    bulkhead_api::Client::new(&dead).unwrap().status().unwrap();
    drop(server);
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    let onto_file = ServerConfig { socket: file.clone(), ..ServerConfig::default() };
    assert!(matches!(Server::start(&onto_file, lab.agent.clone()), Err(ServerError::NotASocket { .. })));
    assert_eq!(fs::read_to_string(file).unwrap(), "precious");
}

#[test]
fn a_group_that_the_host_does_not_have_leaves_the_socket_to_root() {
    let lab = Lab::with(|config| config.group = Some("no-such-group-here".to_owned()));
    assert!(!lab.server.group_found());
    assert_eq!(fs::metadata(lab.server.socket()).unwrap().permissions().mode() & 0o777, 0o600);
}

/// `nobody` sends a request; `None` when that cannot be tried here.
fn as_nobody(socket: &Path, request: &str) -> Option<String> {
    let script = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or do { print \"refused\"; exit }; \
                  print $s $ARGV[1]; $s->flush; local $/; print scalar <$s>;";
    let mut command = Command::new("perl");
    command.args(["-e", script]).arg(socket).arg(request).uid(65_534).gid(65_534);
    let output = command.output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn request(method: &str, path: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn another_user_may_not_even_if_the_file_lets_it() {
    let lab = Lab::start();
    let status = request("GET", "/v1/status", "");
    let Some(answer) = as_nobody(lab.server.socket(), &status) else {
        println!("NOT RUN: another_user_may_not_even_if_the_file_lets_it (not root, or no perl)");
        return;
    };
    assert_eq!(answer, "refused");
    fs::set_permissions(lab.server.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let answer = as_nobody(lab.server.socket(), &status).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(!answer.contains("4711"), "{answer}");
}

#[test]
fn the_group_may_look_and_check_and_with_leave_change() {
    if !fs::read_to_string("/etc/group").unwrap_or_default().contains("nogroup:x:65534:") {
        println!("NOT RUN: the_group_may_look_and_check_and_with_leave_change (no group nogroup)");
        return;
    }
    let reader = Lab::with(|config| config.group = Some("nogroup".to_owned()));
    let ask = |lab: &Lab, method, path, body| as_nobody(lab.server.socket(), &request(method, path, body));
    let Some(answer) = ask(&reader, "GET", "/v1/status", "") else {
        println!("NOT RUN: the_group_may_look_and_check_and_with_leave_change (not root, or no perl)");
        return;
    };
    assert!(reader.server.group_found());
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(fs::metadata(reader.server.socket()).unwrap().permissions().mode() & 0o777, 0o660);
    let mode = "{\"mode\":\"protect\"}";
    let changes = [
        ("PUT", "/v1/mode", mode),
        ("PUT", "/v1/policy", "mode: protect"),
        ("PUT", "/v1/policy?check=false", "mode: protect"),
        ("PUT", "/v1/policy?check=true&check=false", "mode: protect"),
        ("POST", "/v1/down", ""),
        ("POST", "/v1/reload?check=true", ""),
    ];
    for (method, path, body) in changes {
        let answer = ask(&reader, method, path, body).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{method} {path}: {answer}");
    }
    assert!(ask(&reader, "PUT", "/v1/policy?check=true", "mode: protect").unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(*reader.agent.policy.lock().unwrap(), "mode: monitor\n");
    let trusted = Lab::with(|config| {
        config.group = Some("nogroup".to_owned());
        config.group_access = GroupAccess::Change;
    });
    assert!(ask(&trusted, "PUT", "/v1/mode", mode).unwrap().starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_server_that_is_no_agent_is_not_believed() {
    let dir = TestDir::new();
    let path = dir.path().join("s");
    let answers: [&[u8]; 6] = [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 500 OK\r\ncontent-length: 4\r\n\r\noops",
        b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n{",
    ];
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer);
        }
    });
    let client = bulkhead_api::Client::new(&path).unwrap();
    for answer in answers {
        let result = client.status();
        assert!(matches!(result, Err(ClientError::Protocol(_))), "{}: {result:?}", String::from_utf8_lossy(answer));
    }
    thread.join().unwrap();
}
