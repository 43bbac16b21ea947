//! PostgreSQL: who asks and what is answered, and what an attacker may send between.

mod play;

use bulkhead_applayer::{Dir, Finished, Protocol, Transport};
use play::{Told, assert_corpus, framed, play};

const CLIENT: Dir = Dir::ToServer;
const SERVER: Dir = Dir::ToClient;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], &(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

fn startup(code: u32, body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes()[..], &code.to_be_bytes(), body].concat()
}

fn hello() -> Vec<u8> {
    startup(0x30000, b"user\0me\0database\0shop\0DateStyle\0ISO\0\0")
}

fn login() -> Vec<(Dir, Vec<u8>)> {
    vec![
        (CLIENT, startup(80_877_103, b"")),
        (SERVER, b"N".to_vec()),
        (CLIENT, hello()),
        (SERVER, message(b'R', &[0, 0, 0, 10, b'S', 0, 0])),
        (CLIENT, message(b'p', b"SCRAM-SHA-256\0\0\0\0\x05n,,n=")),
        (SERVER, message(b'R', b"\0\0\0\x0br=1")),
        (CLIENT, message(b'p', b"c=biws")),
        (
            SERVER,
            [
                message(b'R', b"\0\0\0\x0cv=1"),
                message(b'R', &[0; 4]),
                message(b'S', b"TimeZone\0Etc/UTC\0"),
                message(b'K', &[0, 0, 0, 7, 0, 0, 1, 0]),
                message(b'Z', b"I"),
            ]
            .concat(),
        ),
    ]
}

fn script() -> Vec<(Dir, Vec<u8>)> {
    let mut script = login();
    let row = [&[0, 2], &[0, 0, 0, 3][..], b"abc", &[0xff; 4]].concat();
    script.extend([
        (CLIENT, message(b'Q', b"select * from t;\0")),
        (
            SERVER,
            [message(b'T', &[0, 2, b'a']), message(b'D', &row), message(b'D', &row), message(b'C', b"SELECT 2\0"), message(b'Z', b"I")]
                .concat(),
        ),
        (
            CLIENT,
            [message(b'P', b"s1\0insert into t\0\0\0"), message(b'B', b"\0s1\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")]
                .concat(),
        ),
        (SERVER, [message(b'1', b""), message(b'E', b"SERROR\0C22012\0Mdivision by zero\0\0"), message(b'Z', b"I")].concat()),
        (CLIENT, message(b'Q', b"copy t to stdout\0")),
        (
            SERVER,
            [message(b'H', &[0, 0, 0]), message(b'd', b"1\t2\n"), message(b'c', b""), message(b'C', b"COPY 1\0"), message(b'Z', b"I")]
                .concat(),
        ),
        (CLIENT, message(b'X', b"")),
    ]);
    script
}

fn check(told: &Told) {
    assert_eq!(told.protocols, [Protocol::Pgsql]);
    told.expect(&["4 pgsql.query select * from t;", "5 pgsql.query insert into t", "6 pgsql.query copy t to stdout"]);
    told.expect_notes(&[
        "0 tx_id=1",
        "0 request.message=SSL Request",
        "0 response.ssl_accepted=false",
        "1 request.protocol_version=3.0",
        "1 request.startup_parameters.user=me",
        "1 request.startup_parameters.optional_parameters[0].database=shop",
        "1 request.startup_parameters.optional_parameters[1].date_style=ISO",
        "1 response.message=authentication_sasl",
        "2 request.sasl_authentication_mechanism=scram_SHA256",
        "2 request.sasl_param=n,,n=",
        "3 request.sasl_response=c=biws",
        "3 response.authentication_sasl_final=v=1",
        "3 response.parameter_status[0].time_zone=Etc/UTC",
        "3 response.secret_key=256",
        "4 response.data_rows=2",
        "4 response.data_size=6",
        "4 response.command_completed=SELECT 2",
        "5 response.code=22012",
        "5 response.message=division by zero",
        "6 response.copy_data_out.row_count=1",
        "6 response.copy_data_out.data_size=4",
        "7 request.message=termination_message",
    ]);
    assert!(told.events().is_empty() && told.finished.is_none(), "{:?} {:?}", told.events(), told.finished);
}

#[test]
fn requests_and_their_answers_are_transactions() {
    for cuts in [&[][..], &[1], &[3, 7, 40]] {
        check(&play(Transport::Tcp, &script(), cuts));
    }
}

#[test]
fn what_is_sent_before_the_answer_on_encryption_waits_for_it() {
    // CVE-2021-23214: requests in the clear behind the question must not pass for what comes after.
    let early = [startup(80_877_103, b""), hello()].concat();
    let told = play(Transport::Tcp, &[(CLIENT, early.clone()), (SERVER, b"N".to_vec()), (CLIENT, message(b'Q', b"select 1\0"))], &[]);
    told.expect(&["2 pgsql.query select 1"]);
    let told = play(
        Transport::Tcp,
        &[(CLIENT, startup(80_877_103, b"")), (SERVER, b"S".to_vec()), (CLIENT, b"GET / HTTP/1.1\r\n\r\n".to_vec())],
        &[],
    );
    assert_eq!(told.protocols, [Protocol::Pgsql, Protocol::Http]);
    told.expect_notes(&["0 response.ssl_accepted=true"]);
}

#[test]
fn queries_sent_before_answers_are_answered_in_order() {
    let done = |text: &str| [message(b'C', text.as_bytes()), message(b'Z', b"I")].concat();
    let mut script = login();
    script.push((CLIENT, [message(b'Q', b"one\0"), message(b'Q', b"two\0")].concat()));
    script.push((SERVER, [done("ONE\0"), done("TWO\0")].concat()));
    let told = play(Transport::Tcp, &script, &[]);
    told.expect_notes(&["4 response.command_completed=ONE", "5 response.command_completed=TWO"]);
}

#[test]
fn long_queries_are_shown_and_long_rows_counted() {
    let long = format!("select '{}' -- end\0", "x".repeat(300_000));
    let row = [&[0, 1], &[0, 4, 0x93, 0xe0][..], &vec![b'r'; 300_000]].concat();
    let mut script = login();
    script.push((CLIENT, message(b'Q', long.as_bytes())));
    script.push((SERVER, [message(b'D', &row), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()));
    script.push((CLIENT, message(b'Q', b"after\0")));
    for cuts in [&[][..], &[1460]] {
        let told = play(Transport::Tcp, &script, cuts);
        let query = told.lines.iter().find(|line| line.starts_with("4 pgsql.query ")).expect("the query");
        assert!(query.len() == "4 pgsql.query ".len() + 2 * 2 + long.len() - 3 && query.ends_with("-- end"), "{}", query.len());
        told.expect_notes(&["4 response.data_size=300000", "4 response.command_completed=SELECT 1"]);
        told.expect(&["5 pgsql.query after"]);
    }
}

#[test]
fn what_is_none_is_an_event() {
    let after = |dir: Dir, bytes: Vec<u8>| {
        let mut script = login();
        script.push((dir, bytes));
        let told = play(Transport::Tcp, &script, &[]);
        (told.events().into_iter().map(str::to_owned).collect::<Vec<_>>(), told.finished)
    };
    assert_eq!(after(CLIENT, message(b'z', b"")).0, ["pgsql.malformed_request"]);
    assert_eq!(after(CLIENT, b"Q\0\0\0\x03".to_vec()), (vec!["pgsql.invalid_length".to_owned()], Some(Finished::Malformed("message"))));
    let mut script = login();
    script.extend([(CLIENT, message(b'Q', b"q\0")), (SERVER, message(b'K', b"\0"))]);
    assert_eq!(play(Transport::Tcp, &script, &[]).events(), ["pgsql.malformed_response"]);
    let mut flood = login();
    flood.push((CLIENT, message(b'Q', b"q\0").repeat(300)));
    assert_eq!(play(Transport::Tcp, &flood, &[]).events().len(), 300 - 256);
}

#[test]
fn other_first_words_are_not_recognised() {
    for bytes in [&b"\0\0\0\x09\x04\xd2\x16\x2f"[..], b"\0\0\0\x10\0\x02\0\0user", b"\0\0\0\x10\0\x03\0\0\xff", b"\0\x01\0\x10", b"N"] {
        for dir in [CLIENT, SERVER] {
            assert_eq!(play(Transport::Tcp, &[(dir, bytes.to_vec())], &[]).protocols, []);
        }
    }
}

#[test]
fn the_corpus_has_the_script() {
    assert_corpus("pgsql.bin", &framed(&script(), 120, &[]));
}
