// message.d.ts describes message.js correctly. Compiled by .ci/run beside both; "made" comes from the module itself.
import * as declared from "./declared/message.js";
import * as made from "./made/message.js";

type Names<T> = { [K in keyof T]: K };

export const message: typeof declared.Message = made.Message;
export const error: typeof declared.MessageError = made.MessageError;
type Makes<T extends abstract new (...args: any) => any> = new (...args: ConstructorParameters<T>) => InstanceType<T>;
export const job: Makes<typeof declared.Job> = made.Job;
export const nothingIsMissing: keyof typeof declared = null! as keyof typeof made;
export const nothingIsInvented: keyof typeof made = null! as keyof typeof declared;
export const noMemberIsMissing: Names<declared.Message> = null! as Names<made.Message>;
export const noMemberIsInvented: Names<made.Message> = null! as Names<declared.Message>;
export const noMemberOfJobsIsMissing: Names<declared.Job> = null! as Names<made.Job>;
export const noMemberOfJobsIsInvented: Names<made.Job> = null! as Names<declared.Job>;
