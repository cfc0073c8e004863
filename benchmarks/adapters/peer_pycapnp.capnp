@0xb3c1f5b0a9d2e741;

interface Bench {
  echo @0 (value :Text) -> (value :Text);
  large @1 (value :Data) -> (value :Data);
  hang @2 () -> ();
  running @3 () -> (count :UInt32);
  items @4 (sink :Sink, count :UInt32) -> ();
  callBack @5 (function :Function, count :UInt32, callers :UInt32) -> ();
}

interface Sink {
  push @0 (number :UInt64) -> stream;
}

interface Function {
  call @0 (value :Text) -> (value :Text);
}
