//! DNP3 and Modbus through sessions: what stations and controllers say.

mod play;

use bulkhead_applayer::{Dir, Finished, Protocol, Transport, fuzz};
use play::{assert_corpus, framed, play};
use proptest::prelude::*;

// === DNP3 ===

fn sum(bytes: &[u8]) -> [u8; 2] {
    let mut sum = 0_u16;
    for byte in bytes {
        sum ^= u16::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xa6bc } else { sum >> 1 };
        }
    }
    (!sum).to_le_bytes()
}

/// One segment of a message, behind the byte of its transport.
fn frame(control: u8, transport: u8, part: &[u8]) -> Vec<u8> {
    let head = [0x05, 0x64, 6 + part.len() as u8, control, 2, 0, 3, 0];
    let mut all = [&head[..], &sum(&head)].concat();
    for block in [&[transport], part].concat().chunks(16) {
        all.extend_from_slice(block);
        all.extend(sum(block));
    }
    all
}

fn dnp3_script() -> Vec<(Dir, Vec<u8>)> {
    let operate = [&[0xc1, 5, 12, 1, 0x28, 1, 0, 7, 0, 0x83, 1][..], &[100, 0, 0, 0, 200, 0, 0, 0, 0]].concat();
    let answer = [&[0xc1, 129, 0x80, 0x02, 30, 5, 0, 4, 5, 1][..], &1.5_f32.to_le_bytes(), &[3], &(-2.0_f32).to_le_bytes()].concat();
    let packed = [0xc2, 130, 0, 0, 1, 1, 0, 0, 9, 0x05, 0x02];
    vec![
        (Dir::ToServer, [frame(0xc4, 0x40, &operate[..9]), frame(0xc4, 0x81, &operate[9..])].concat()),
        (Dir::ToClient, frame(0x44, 0xc0, &answer)),
        (Dir::ToServer, frame(0xc4, 0xc2, &[0xc2, 0])),
        (Dir::ToClient, frame(0x44, 0xc1, &packed)),
        (Dir::ToServer, frame(0xc4, 0xc3, &[0xc3, 1, 60, 2, 6, 60, 3, 6])),
    ]
}

#[test]
fn messages_of_stations_have_objects_and_points() {
    let told = play(Transport::Tcp, &dnp3_script(), &[]);
    assert_eq!((told.protocols.as_slice(), told.finished), (&[Protocol::Dnp3][..], None));
    told.expect(&[
        "0 dnp3_func=5",
        "0 dnp3.object=3073",
        "1 dnp3_func=129",
        "1 dnp3.indications=32770",
        "2 dnp3_func=130",
        "3 dnp3.object=15362",
    ]);
    told.expect_notes(&[
        "0 type=request",
        "0 src=3",
        "0 dst=2",
        "0 control.dir=true",
        "0 application.control.sequence=1",
        "0 application.objects[0].points[0].index=7",
        "0 application.objects[0].points[0].op_type=3",
        "0 application.objects[0].points[0].tcc=2",
        "0 application.objects[0].points[0].offtime=200",
        "0 application.complete=true",
        "1 iin.indicators[0]=device_restart",
        "1 iin.indicators[1]=object_unknown",
        "1 application.objects[0].points[1].index=5",
        "1 application.objects[0].points[1].value=-2.0",
        "2 type=unsolicited_response",
        "2 application.objects[0].points[2].state=1",
        "2 application.objects[0].points[9].state=1",
        "3 application.objects[1].variation=3",
    ]);
    assert_eq!(told.events(), [""; 0]);
}

#[test]
fn broken_frames_and_floods_are_told_of() {
    let mut bad = frame(0xc4, 0xc0, &[0xc0, 1]);
    let last = bad.len() - 1;
    bad[last] ^= 1;
    assert_eq!(play(Transport::Tcp, &[(Dir::ToServer, bad)], &[]).events(), ["dnp3.bad_transport_crc"]);
    let request = frame(0xc4, 0xc0, &[0xc0, 1]);
    let told = play(Transport::Tcp, &[(Dir::ToServer, request.repeat(60))], &[]);
    assert_eq!((told.events(), told.notes.iter().filter(|note| note.ends_with("type=request")).count()), (vec!["dnp3.flooded"], 33));
    let many = [0xc0, 129, 0, 0, 30, 1, 9, 0xff, 0xff, 0xff, 0];
    assert_eq!(play(Transport::Tcp, &[(Dir::ToClient, frame(0x44, 0xc0, &many))], &[]).events(), ["dnp3.too_many_points"]);
    let unknown = [0xc0, 129, 0, 0, 200, 1, 7, 1, 0];
    assert_eq!(play(Transport::Tcp, &[(Dir::ToClient, frame(0x44, 0xc0, &unknown))], &[]).events(), ["dnp3.unknown_object"]);
    let mut parts = frame(0xc4, 0x40, &[7; 249]);
    (1..66).for_each(|at| parts.extend(frame(0xc4, at % 64, &[7; 249])));
    assert_eq!(play(Transport::Tcp, &[(Dir::ToServer, parts)], &[]).events(), ["dnp3.too_long_reassembly"]);
    let script = [(Dir::ToServer, [request.clone(), vec![5, 0x64, 2, 0, 0, 0, 0, 0, 0, 0]].concat())];
    assert_eq!(play(Transport::Tcp, &script, &[]).finished, Some(Finished::Malformed("length of a frame")));
}

// === Modbus ===

fn modbus(number: u8, unit: u8, content: &[u8]) -> Vec<u8> {
    [&[0, number, 0, 0, 0, 1 + content.len() as u8, unit], content].concat()
}

fn modbus_script() -> Vec<(Dir, Vec<u8>)> {
    vec![
        (Dir::ToServer, modbus(1, 10, &[1, 0, 5, 0, 9])),
        (Dir::ToClient, modbus(1, 10, &[1, 2, 0xff, 1])),
        (Dir::ToServer, modbus(2, 10, &[16, 0, 100, 0, 2, 4, 1, 0, 0, 9])),
        (Dir::ToClient, modbus(2, 10, &[16, 0, 100, 0, 2])),
        (Dir::ToServer, modbus(3, 10, &[8, 0, 4, 0, 0])),
        (Dir::ToClient, modbus(3, 10, &[0x88, 2])),
        (Dir::ToServer, modbus(4, 11, &[43, 14, 1, 0])),
    ]
}

#[test]
fn controllers_are_read_and_written() {
    let told = play(Transport::Tcp, &modbus_script(), &[]);
    assert_eq!((told.protocols.as_slice(), told.finished), (&[Protocol::Modbus][..], None));
    let access = |quantity: u64, address: u64, table: u64, ways: u64| quantity << 32 | address << 16 | table << 8 | ways;
    told.expect(&[
        "0 modbus.unit=10",
        &format!("0 modbus.access={}", access(9, 5, 2, 1)),
        &format!("0 modbus.function={}", 0x1_ffff),
        "0 modbus.category=1",
        &format!("1 modbus.access={}", access(2, 100, 4, 2)),
        &format!("1 modbus.written={}", 100 << 16 | 0x100),
        &format!("1 modbus.written={}", 101 << 16 | 9),
        &format!("2 modbus.function={}", 8 << 16 | 4),
    ]);
    told.expect_notes(&[
        "0 id=1",
        "0 request.function_code=RdCoils",
        "0 request.access_type=READ | COILS",
        "0 request.read.quantity=9",
        "0 response.category=PUBLIC_ASSIGNED",
        "1 request.write.address=100",
        "2 response.exception.code=IllegalDataAddr",
        "3 request.mei.raw=14",
        "3 request.error_flags=NONE",
    ]);
    assert_eq!(told.events(), [""; 0]);
}

#[test]
fn wrong_values_and_answers_are_told_of() {
    let first = modbus_script().remove(0);
    for (message, event) in [
        ((Dir::ToClient, modbus(1, 10, &[1, 1, 0xff])), "modbus.value_mismatch"),
        ((Dir::ToClient, modbus(9, 10, &[1, 1, 0xff])), "modbus.unsolicited_response"),
        ((Dir::ToClient, modbus(1, 10, &[0x81, 99])), "modbus.invalid_exception_code"),
        ((Dir::ToServer, modbus(2, 10, &[1, 0, 0, 0, 0])), "modbus.invalid_value"),
        ((Dir::ToServer, modbus(2, 10, &[0, 0])), "modbus.invalid_function_code"),
        ((Dir::ToServer, [0, 2, 7, 7, 0, 2, 1, 7].to_vec()), "modbus.invalid_protocol_id"),
        ((Dir::ToServer, modbus(1, 10, &[7])), "modbus.flooded"),
    ] {
        assert_eq!(play(Transport::Tcp, &[first.clone(), message], &[]).events(), [event]);
    }
    let told = play(Transport::Tcp, &[first, (Dir::ToServer, vec![0, 1, 0, 0, 9, 9, 1, 1])], &[]);
    assert_eq!(told.finished, Some(Finished::Malformed("length")));
    told.expect(&["- !modbus.invalid_length"]);
}

#[test]
fn the_corpus_has_the_scripts() {
    assert_corpus("dnp3.bin", &framed(&dnp3_script(), 127, &[]));
    assert_corpus("modbus.bin", &framed(&modbus_script(), 127, &[]));
}

proptest! {
    #[test]
    fn segments_do_not_matter(cuts in prop::collection::vec(1_usize..40, 1..20)) {
        for script in [dnp3_script(), modbus_script()] {
            let (whole, cut) = (play(Transport::Tcp, &script, &[]), play(Transport::Tcp, &script, &cuts));
            prop_assert_eq!((whole.lines, whole.notes), (cut.lines, cut.notes));
        }
    }

    #[test]
    fn any_bytes_are_read(damage in prop::collection::vec((0_usize..60, any::<u8>()), 0..6), cut in 1_usize..127) {
        for script in [dnp3_script(), modbus_script()] {
            fuzz::fuzz_session(Transport::Tcp, &framed(&script, cut, &damage));
        }
    }
}
