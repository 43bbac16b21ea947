//! Nothing to do costs nothing: a file of its own, because it looks at all threads of the process.

mod kit;

use std::fs;
use std::time::Duration;

use bulkhead_api::EventQuery;
use kit::{Lab, alert};

/// Times that the threads of store and server were given the processor, and how many threads that are.
fn switches() -> (usize, u64) {
    let (mut threads, mut switches) = (0, 0);
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        // A thread that has just ended is not one of ours.
        let (Ok(name), Ok(status)) = (fs::read_to_string(path.join("comm")), fs::read_to_string(path.join("status"))) else { continue };
        if name.starts_with("bulkhead-") {
            threads += 1;
            let counts = status.lines().filter(|line| line.contains("ctxt_switches:"));
            switches += counts.map(|line| line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum::<u64>();
        }
    }
    (threads, switches)
}

#[test]
fn an_idle_store_and_an_idle_server_sleep_even_with_a_live_view_open() {
    let lab = Lab::with(|config| config.metrics = Some("127.0.0.1:0".parse().unwrap()));
    let client = lab.client();
    lab.agent.send_now(alert(1));
    client.events(&EventQuery::default()).unwrap();
    let _live = client.follow(&EventQuery::default()).unwrap();
    // The threads that answered the question above are kept for two seconds.
    std::thread::sleep(Duration::from_secs(4));
    let (threads, before) = switches();
    std::thread::sleep(Duration::from_secs(3));
    let (_, after) = switches();
    assert_eq!(threads, 2, "the writer of the store and the server");
    assert!(after - before <= 3, "woken {} times in three seconds without a cause", after - before);
}
