//! A broker whose quota is passed: a go-between writes throttle times into answers, and looks at when the client goes on.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ringlog::protocol::ApiKey;
use ringlog::protocol::frame::FRAME_PREFIX_BYTES;

use super::*;
use crate::tools::ages::{behind, frame};

const PAUSE: Duration = Duration::from_millis(150);
/// Correlation id and tagged fields of an answer's header.
const HEADER_BYTES: usize = 5;

/// Where an answer has its throttle time: Fetch at the beginning, Produce at the end, before its tagged fields.
fn throttle_position(key: i16, answer: &[u8]) -> usize {
    match key == ApiKey::Fetch.code() {
        true => FRAME_PREFIX_BYTES + HEADER_BYTES,
        false => answer.len() - 5,
    }
}

/// Passes a connection's requests and answers on, one at a time, and plants a pause into the first `planted` answers to
/// Produce and Fetch each; notes requests that come before it is over.
fn go_between(mut client: TcpStream, broker: SocketAddr, left: &[AtomicUsize; 2], early: &Mutex<usize>) -> Option<()> {
    use std::io::Write;

    let mut broker = TcpStream::connect(broker).ok()?;
    let mut not_before = Instant::now();
    loop {
        let request = frame(&mut client)?;
        if Instant::now() < not_before {
            *early.lock().expect("no panic") += 1;
        }
        let key = i16::from_be_bytes([request[4], request[5]]);
        broker.write_all(&request).ok()?;
        let mut answer = frame(&mut broker)?;
        if let Some(left) = left.get(usize::try_from(key).ok()?)
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        {
            let position = throttle_position(key, &answer);
            assert_eq!(answer[position..position + 4], [0; 4], "ringlog's own answer has a throttle time of none");
            answer[position..position + 4].copy_from_slice(&(PAUSE.as_millis() as u32).to_be_bytes());
            not_before = Instant::now() + PAUSE;
        }
        client.write_all(&answer).ok()?;
    }
}

#[test]
fn a_client_keeps_still_for_as_long_as_an_answer_says_and_tells_of_it() {
    let directory = directory();
    let left = Arc::new([AtomicUsize::new(2), AtomicUsize::new(1)]);
    let early = Arc::new(Mutex::new(0));
    let (planted, seen) = (left.clone(), early.clone());
    let (server, _, address) =
        behind(directory.path(), move |client, broker| go_between(client, broker, &planted, &seen));
    let run = |arguments: &str| {
        let mut command = ringlog(&server, &format!("bench {arguments} -t held -q -b {address}"));
        let output = command.output().expect("run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    };
    let produced = json(&run("produce -p 1 --keep -n 300 --depth 1 --batch-size 2000 --json"));
    let throttled = &produced["produced"]["throttled"];
    assert_eq!((&throttled["answers"], &throttled["asked_s"]), (&2.into(), &0.3.into()), "{produced}");
    assert!(throttled["held_s"].as_f64().is_some_and(|held| (0.299..=0.301).contains(&held)), "{throttled}");
    assert!(produced["seconds"].as_f64() >= Some(0.3), "{produced}");

    let consumed = String::from_utf8(run("consume --max-bytes 2000").stdout).expect("text");
    assert!(consumed.contains("Throttled by a quota: 1 answers asked this client to wait"), "{consumed}");
    assert!(consumed.contains("held back for 0.1 s") || consumed.contains("held back for 0.2 s"), "{consumed}");
    assert_eq!(
        (*early.lock().expect("no panic"), left.each_ref().map(|left| left.load(Ordering::SeqCst))),
        (0, [0, 0])
    );
    server.stop();
}
