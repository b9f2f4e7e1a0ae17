//! The executor runs tasks and timers in one fixed order.

use openraft::async_runtime::{AsyncRuntime, Mpsc, MpscSender};

use super::*;

#[test]
fn keeps_what_openraft_asks_of_a_runtime() {
    // openraft's own conformance suite: spawning, timers, channels, watches, mutex, selects.
    openraft_rt::testing::Suite::<Runtime>::test_all_on(&mut Runtime::new(1));
}

fn log_of(seed: u64, work: impl Fn(Arc<Executor>, Arc<Mutex<Vec<u64>>>)) -> Vec<u64> {
    let executor = Executor::new(1000, seed);
    let log: Arc<Mutex<Vec<u64>>> = Arc::default();
    executor.enter(|| {
        work(executor.clone(), log.clone());
        executor.run();
        while let Some(deadline) = executor.deadline() {
            executor.advance(deadline);
            executor.run();
        }
        executor.clear();
    });
    std::mem::take(&mut *lock(&log))
}

#[test]
fn timers_fire_in_time_order_and_then_in_the_order_of_setting() {
    let log = log_of(0, |executor, log| {
        for (number, nanos) in [(1, 30), (2, 10), (3, 30), (4, 20)] {
            let log = log.clone();
            executor.spawn(async move {
                Runtime::sleep(Duration::from_nanos(nanos)).await;
                lock(&log).push(number);
            });
        }
    });
    assert_eq!(log, [2, 4, 1, 3]);
}

#[test]
fn ready_tasks_run_first_in_first_out() {
    let log = log_of(0, |executor, log| {
        let (sender, receiver) = <Bounded as Mpsc>::channel::<u64>(1);
        for number in 1..=4 {
            let (sender, log) = (sender.clone(), log.clone());
            executor.spawn(async move {
                sender.send(number).await.expect("someone receives");
                lock(&log).push(number);
            });
        }
        let log = log.clone();
        executor.spawn(async move {
            let mut receiver = receiver;
            while let Some(number) =
                openraft::async_runtime::MpscReceiver::recv(&mut receiver).await
            {
                lock(&log).push(number * 10);
                if number == 4 {
                    break;
                }
            }
        });
    });
    assert_eq!(log, [1, 10, 2, 20, 3, 30, 4, 40], "one at a time, through a queue of one");
}

#[test]
fn randomness_is_the_seeds() {
    let draw = |seed| {
        log_of(seed, |_, log| {
            let mut random = Runtime::thread_rng();
            lock(&log).extend((0..4).map(|_| random.next_u64()));
        })
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn a_task_that_wakes_itself_for_ever_leaves_the_run() {
    let executor = Executor::new(5, 0);
    executor.spawn(std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        Poll::Pending
    }));
    executor.run();
    assert_eq!(executor.deadline(), Some(5), "it wants to go on at once");
    executor.clear();
    assert_eq!(executor.deadline(), None);
}

#[test]
fn the_clock_never_goes_back() {
    let executor = Executor::new(100, 0);
    executor.advance(50);
    assert_eq!(executor.now(), 100);
}
