import { mkdtemp, rm } from 'node:fs/promises';
import { openSqliteState } from '../src/adapters/state-sqlite.ts';
let ahead=0;const clock={now:()=>Date.now()+ahead,elapsed:()=>performance.now()};
const folder=await mkdtemp('/tmp/pst-');
const of=await openSqliteState(folder,clock);
const T={delayMs:300000,windowMs:2*864e5,ageMs:35*864e5,clientPasses:0};
const tr=(n:number)=>({network:`192.0.${(n>>8)&255}.0/24`,sender:`sender-${n}@somewhere.example`,recipient:`recipient-${n%5000}@example.org`});
for(let n=0;n<1000;n++)await of.greylist(tr(n),T);ahead+=300000;for(let n=0;n<1000;n++)await of.greylist(tr(n),T);
const h=(limit:string,n:number,algorithm:'window'|'bucket'='window')=>({limit,key:`login-${n}@example.org`,algorithm,most:1e9,periodMs:3600000,cost:1,enforced:true});
const L=(n:number)=>[h('per-login',n%1000),h('per-net',n%200,'bucket'),h('all',0)];
const C=(n:number)=>[{mailbox:`user${n%1000}@example.org`,bytes:10000,used:1e6,limit:1e9,grace:0}];
let s=0;
async function run(name:string,one:(n:number)=>Promise<unknown>,count=40000){const end=s+count;const c=process.cpuUsage(),b=performance.now();await Promise.all(Array.from({length:64},async()=>{while(s<end)await one(s++)}));const u=process.cpuUsage(c);console.log(name.padEnd(30),((performance.now()-b)*1000/count).toFixed(1),((u.user+u.system)/count).toFixed(1))}
const parts:Record<string,(n:number)=>Promise<unknown>>={
 limits:n=>of.hit(L(n)),
 onelimit:n=>of.hit([h('per-login',n%1000)]),
 reserve:n=>of.reserve('r'+n,C(n),500),
 apart:async n=>{await of.greylist(tr(n%1000),T);await of.reserve('a'+n,C(n),500);await of.hit(L(n))},
 rh:n=>Promise.all([of.reserve('b'+n,C(n),500),of.hit(L(n))]),
 gh:n=>Promise.all([of.greylist(tr(n%1000),T),of.hit(L(n))]),
 together:n=>Promise.all([of.greylist(tr(n%1000),T),of.reserve('t'+n,C(n),500),of.hit(L(n))]),
};
for(let r=0;r<3;r++)for(const [k,f] of Object.entries(parts))await run(k,f);
await of[Symbol.asyncDispose]();await rm(folder,{recursive:true});
