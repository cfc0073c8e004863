@0xb3c1f5b0a9d2e741;

interface Bench {
  echo @0 (value :Text) -> (value :Text);
  large @1 (value :Data) -> (value :Data);
  hang @2 () -> ();
  running @3 () -> (count :UInt32);
  items @4 (sink :Sink, count :UInt32) -> ();
  callBack @5 (function :Function, count :UInt32, callers :UInt32) -> ();
  quote @6 (value :Quote) -> (value :Quote);
  orders @7 (value :List(Order)) -> (value :List(Order));
}

struct Quote {
  symbol @0 :Text;
  price @1 :Float64;
}

struct Order {
  number @0 :Int64;
  symbol @1 :Text;
  side @2 :Text;
  quantity @3 :Int64;
  price @4 :Float64;
  isOpen @5 :Bool;
  account @6 :Text;
  filled @7 :Int64;
  average @8 :Float64;
  note @9 :Text;
}

interface Sink {
  push @0 (number :UInt64) -> stream;
}

interface Function {
  call @0 (value :Text) -> (value :Text);
}
