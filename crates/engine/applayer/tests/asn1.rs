//! Kerberos, LDAP and SNMP through sessions: what is written in BER.

mod play;

use bulkhead_applayer::{Dir, Finished, Protocol, Transport, fuzz};
use play::{assert_corpus, framed, play};
use proptest::prelude::*;

fn ber(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let len = content.len();
    let head = if len < 128 { vec![tag, len as u8] } else { vec![tag, 0x82, (len >> 8) as u8, len as u8] };
    [head, content].concat()
}

fn seq(parts: &[&[u8]]) -> Vec<u8> {
    ber(0x30, parts)
}

fn int(number: u8) -> Vec<u8> {
    vec![2, 1, number]
}

fn text(text: &str) -> Vec<u8> {
    ber(4, &[text.as_bytes()])
}

// === SNMP ===

fn variables() -> Vec<u8> {
    seq(&[&seq(&[&[6, 8, 0x2b, 6, 1, 2, 1, 1, 1, 0], &[5, 0]])])
}

fn get(version: u8) -> Vec<u8> {
    seq(&[&int(version), &text("public"), &ber(0xa1, &[&int(1), &int(0), &int(0), &variables()])])
}

fn third(model: u8) -> Vec<u8> {
    let global = seq(&[&int(7), &int(100), &ber(4, &[&[4]]), &int(model)]);
    let user = seq(&[&text("engine"), &int(0), &int(0), &text("bob"), &text(""), &text("")]);
    let scoped = seq(&[&text("engine"), &text(""), &ber(0xa2, &[&int(1), &int(5), &int(0), &variables()])]);
    seq(&[&int(3), &global, &ber(4, &[&user]), &scoped])
}

fn trap() -> Vec<u8> {
    let pdu = ber(0xa4, &[&[6, 3, 0x2b, 6, 1], &[0x40, 4, 192, 0, 2, 1], &int(2), &int(0), &[0x43, 1, 9], &variables()]);
    seq(&[&int(0), &text("public"), &pdu])
}

fn snmp_script() -> Vec<(Dir, Vec<u8>)> {
    vec![(Dir::ToServer, get(1)), (Dir::ToClient, third(3)), (Dir::ToServer, trap()), (Dir::ToServer, third(9))]
}

#[test]
fn snmp_messages_are_transactions_in_all_versions() {
    let told = play(Transport::Udp, &snmp_script(), &[]);
    assert_eq!(told.protocols, [Protocol::Snmp]);
    told.expect(&[
        "0 snmp.community public",
        "0 snmp.version=2",
        "0 snmp.pdu_type=1",
        "1 snmp.usm bob",
        "1 snmp.version=3",
        "1 snmp.pdu_type=2",
        "2 snmp.version=1",
        "3 !snmp.unknown_security_model",
    ]);
    told.expect_notes(&[
        "0 vars[0]=1.3.6.1.2.1.1.1.0",
        "0 pdu_type=get_next_request",
        "1 error=GenErr",
        "2 trap_type=LinkDown",
        "2 trap_oid=1.3.6.1",
        "2 trap_address=192.0.2.1",
    ]);
    let broken = seq(&[&int(1), &text("public"), &ber(0xa0, &[&int(1)])]);
    assert_eq!(play(Transport::Udp, &[(Dir::ToServer, broken)], &[]).events(), ["snmp.malformed_data"]);
}

// === LDAP ===

fn ldap(number: u8, tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    seq(&[&int(number), &ber(tag, parts)])
}

fn result(code: u8, message: &str) -> Vec<u8> {
    [vec![0x0a, 1, code], text(""), text(message)].concat()
}

fn ldap_script() -> Vec<(Dir, Vec<u8>)> {
    let attribute = |name: &str, value: &str| seq(&[&text(name), &ber(0x31, &[&text(value)])]);
    let search: [&[u8]; 8] = [
        &text("dc=example"),
        &[0x0a, 1, 2],
        &[0x0a, 1, 0],
        &int(0),
        &int(30),
        &[1, 1, 0xff],
        &ber(0x87, &[b"objectClass"]),
        &seq(&[&text("cn"), &text("*")]),
    ];
    let change = seq(&[&[0x0a, 1, 2], &attribute("mail", "a@b.test")]);
    vec![
        (Dir::ToServer, ldap(1, 0x60, &[&int(3), &text("cn=admin"), &ber(0x80, &[b"secret"])])),
        (Dir::ToClient, ldap(1, 0x61, &[&result(49, "no")])),
        (Dir::ToServer, ldap(2, 0x63, &search)),
        (Dir::ToClient, ldap(2, 0x64, &[&text("cn=a,dc=example"), &seq(&[&attribute("cn", "a"), &attribute("sn", "b")])])),
        (Dir::ToClient, ldap(2, 0x65, &[&result(0, "")])),
        (Dir::ToServer, ldap(3, 0x66, &[&text("cn=a"), &seq(&[&change])])),
        (Dir::ToServer, ldap(4, 0x68, &[&text("cn=new"), &seq(&[&attribute("cn", "new")])])),
        (Dir::ToServer, ldap(5, 0x4a, &[b"cn=old"])),
        (Dir::ToServer, ldap(6, 0x6c, &[&text("cn=a"), &text("cn=b"), &[1, 1, 0], &ber(0x80, &[b"dc=c"])])),
        (Dir::ToServer, ldap(7, 0x6e, &[&text("cn=a"), &seq(&[&text("sn"), &text("x")])])),
        (Dir::ToServer, ldap(8, 0x50, &[&[7]])),
        (Dir::ToClient, ldap(77, 0x65, &[&result(0, "")])),
        (Dir::ToServer, ldap(9, 0x42, &[])),
    ]
}

#[test]
fn ldap_requests_have_their_responses() {
    let told = play(Transport::Tcp, &ldap_script(), &[]);
    assert_eq!((told.protocols.as_slice(), told.finished), (&[Protocol::Ldap][..], None));
    told.expect(&[
        "0 ldap.request.dn cn=admin",
        "0 ldap.request.operation=0",
        "0 ldap.responses.result_code=49",
        "0 ldap.responses.message no",
        "1 ldap.request.attribute_type cn",
        "1 ldap.responses.dn cn=a,dc=example",
        "1 ldap.responses.attribute_type sn",
        "1 ldap.responses.operation=4",
        "1 ldap.responses.operation=5",
        "1 ldap.responses.count=2",
        "2 ldap.request.attribute_type mail",
        "3 ldap.request.attribute_type cn",
        "4 ldap.request.dn cn=old",
        "6 ldap.request.attribute_type sn",
    ]);
    told.expect_notes(&[
        "0 request.bind_request.version=3",
        "0 responses[0].bind_response.result_code=invalid_credentials",
        "1 request.search_request.scope=2",
        "1 request.search_request.types_only=true",
        "1 request.search_request.attributes[1]=*",
        "1 responses[0].search_result_entry.attributes[1].values[0]=b",
        "2 request.modify_request.changes[0].operation=replace",
        "2 request.modify_request.changes[0].modification.attribute_values[0]=a@b.test",
        "5 request.mod_dn_request.new_superior=dc=c",
        "6 request.compare_request.attribute_value_assertion.value=x",
        "7 request.abandon_request.message_id=7",
        "9 request.operation=unbind_request",
    ]);
    assert_eq!(told.events(), ["ldap.request_not_found"]);
}

#[test]
fn what_follows_an_accepted_starttls_is_another_protocol() {
    let oid = b"1.3.6.1.4.1.1466.20037";
    let hello = [&[22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0, 0, 0]].concat();
    let script = |code| {
        vec![
            (Dir::ToServer, ldap(1, 0x77, &[&ber(0x80, &[oid])])),
            (Dir::ToClient, ldap(1, 0x78, &[&result(code, ""), &ber(0x8a, &[oid])])),
            (Dir::ToServer, hello.clone()),
        ]
    };
    assert_eq!(play(Transport::Tcp, &script(0), &[]).protocols, [Protocol::Ldap, Protocol::Tls]);
    assert_eq!(play(Transport::Tcp, &script(52), &[]).finished, Some(Finished::Malformed("message")));
}

#[test]
fn an_endless_answer_is_several_transactions() {
    let mut script = vec![ldap_script()[2].clone()];
    script.extend((0..600).map(|_| (Dir::ToClient, ldap(2, 0x64, &[&text("cn=a"), &seq(&[])]))));
    let told = play(Transport::Tcp, &script, &[]);
    assert_eq!((told.events().len(), told.lines.iter().filter(|line| line.ends_with("ldap.responses.dn cn=a")).count()), (2, 600));
}

// === Kerberos ===

fn general(text: &str) -> Vec<u8> {
    ber(0x1b, &[text.as_bytes()])
}

fn principal(parts: &[&str]) -> Vec<u8> {
    let parts: Vec<u8> = parts.iter().flat_map(|part| general(part)).collect();
    seq(&[&ber(0xa0, &[&int(1)]), &ber(0xa1, &[&seq(&[&parts])])])
}

fn encrypted(kind: u8) -> Vec<u8> {
    seq(&[&ber(0xa0, &[&int(kind)]), &ber(0xa2, &[&text("cipher")])])
}

fn as_req() -> Vec<u8> {
    let body = seq(&[
        &ber(0xa0, &[&[3, 1, 0]]),
        &ber(0xa1, &[&principal(&["alice"])]),
        &ber(0xa2, &[&general("EXAMPLE.TEST")]),
        &ber(0xa3, &[&principal(&["krbtgt", "EXAMPLE.TEST"])]),
    ]);
    ber(0x6a, &[&seq(&[&ber(0xa1, &[&int(5)]), &ber(0xa2, &[&int(10)]), &ber(0xa4, &[&body])])])
}

fn tgs_rep() -> Vec<u8> {
    let ticket = ber(
        0x61,
        &[&seq(&[
            &ber(0xa0, &[&int(5)]),
            &ber(0xa1, &[&general("EXAMPLE.TEST")]),
            &ber(0xa2, &[&principal(&["cifs", "server"])]),
            &ber(0xa3, &[&encrypted(23)]),
        ])],
    );
    ber(
        0x6d,
        &[&seq(&[
            &ber(0xa0, &[&int(5)]),
            &ber(0xa1, &[&int(13)]),
            &ber(0xa3, &[&general("EXAMPLE.TEST")]),
            &ber(0xa4, &[&principal(&["alice"])]),
            &ber(0xa5, &[&ticket]),
            &ber(0xa6, &[&encrypted(18)]),
        ])],
    )
}

fn error() -> Vec<u8> {
    let parts = [
        ber(0xa0, &[&int(5)]),
        ber(0xa1, &[&int(30)]),
        ber(0xa6, &[&int(25)]),
        ber(0xa9, &[&general("EXAMPLE.TEST")]),
        ber(0xaa, &[&principal(&["krbtgt", "EXAMPLE.TEST"])]),
    ];
    ber(0x7e, &[&seq(&[&parts.concat()])])
}

fn krb5_script() -> Vec<(Dir, Vec<u8>)> {
    vec![(Dir::ToServer, as_req()), (Dir::ToClient, error()), (Dir::ToClient, tgs_rep())]
}

fn over_tcp(script: &[(Dir, Vec<u8>)]) -> Vec<(Dir, Vec<u8>)> {
    script.iter().map(|(dir, bytes)| (*dir, [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat())).collect()
}

#[test]
fn kerberos_names_and_encryptions_are_told_of() {
    for told in [play(Transport::Udp, &krb5_script(), &[]), play(Transport::Tcp, &over_tcp(&krb5_script()), &[7])] {
        assert_eq!(told.protocols, [Protocol::Krb5]);
        told.expect(&[
            "0 krb5.cname alice",
            "0 krb5.sname krbtgt",
            "0 krb5.sname EXAMPLE.TEST",
            "0 krb5_msg_type=10",
            "1 krb5_err_code=25",
            "2 krb5.ticket_encryption=23",
        ]);
        told.expect_notes(&[
            "0 msg_type=KRB_AS_REQ",
            "0 sname=krbtgt/EXAMPLE.TEST",
            "0 encryption=<none>",
            "1 failed_request=KRB_AS_REQ",
            "1 error_code=KDC_ERR_PREAUTH_REQUIRED",
            "1 cname=<empty>",
            "1 realm=<empty>",
            "2 encryption=aes256-cts-hmac-sha1-96",
            "2 ticket_encryption=rc4-hmac",
            "2 ticket_weak_encryption=true",
        ]);
        assert_eq!(told.events(), [""; 0]);
    }
    let mut weak = krb5_script().remove(2).1;
    let at = weak.windows(3).rposition(|window| window == [2, 1, 18]).expect("the answer's encryption");
    weak[at + 2] = 3;
    assert_eq!(play(Transport::Udp, &[(Dir::ToClient, weak)], &[]).events(), ["krb5.weak_encryption"]);
}

#[test]
fn what_only_looks_alike_is_not_taken() {
    let not: [&[u8]; 6] = [
        b"\x30\x0c\x02\x01\x07\x04\x06public\xa0",
        b"\x30\x84\0\0",
        b"\x6a\x03\x30\x01\x05",
        b"\x30\x05\x02\x01\x01\x7f\x00",
        &[0x30; 60],
        b"0\r\n\r\n",
    ];
    for bytes in not {
        for transport in [Transport::Udp, Transport::Tcp] {
            assert_eq!(play(transport, &[(Dir::ToServer, bytes.to_vec())], &[]).protocols, [], "{bytes:?}");
        }
    }
}

#[test]
fn the_corpus_has_the_scripts() {
    assert_corpus("snmp.bin", &framed(&snmp_script(), 127, &[]));
    assert_corpus("ldap.bin", &framed(&ldap_script(), 127, &[]));
    assert_corpus("krb5.bin", &framed(&krb5_script()[..2], 127, &[]));
    assert_corpus("krb5_tcp.bin", &framed(&over_tcp(&krb5_script()), 127, &[]));
}

proptest! {
    #[test]
    fn segments_do_not_matter(cuts in prop::collection::vec(1_usize..40, 1..20)) {
        let (whole, cut) = (play(Transport::Tcp, &ldap_script(), &[]), play(Transport::Tcp, &ldap_script(), &cuts));
        prop_assert_eq!((whole.lines, whole.notes), (cut.lines, cut.notes));
        let script = over_tcp(&krb5_script());
        prop_assert_eq!(play(Transport::Tcp, &script, &[]).notes, play(Transport::Tcp, &script, &cuts).notes);
    }

    #[test]
    fn any_bytes_are_read(damage in prop::collection::vec((0_usize..200, any::<u8>()), 0..6), cut in 1_usize..127) {
        for script in [snmp_script(), ldap_script(), krb5_script(), over_tcp(&krb5_script())] {
            fuzz::fuzz_session(Transport::Tcp, &framed(&script, cut, &damage));
            fuzz::fuzz_session(Transport::Udp, &framed(&script, 127, &damage));
        }
    }
}
