"""Prototype."""
from __future__ import annotations
from dataclasses import dataclass, field
from datetime import date, timedelta
import numpy as np
from app.core.arrivals import AGES, Arrivals, SeriesKey
from app.core.baseline import WEEK, fit, median_over, spread_over
from app.core.completeness import learn

J = 28
P = dict(T1=5.0, TS=5.0, TD=5.0, rel1=.2, relS=.12, ct=.6, b=.025, adopt=21, quiet=9, drop_ratio=.6, zmove=2.2, TA=6.0, bagg=.025, rela=.1)

@dataclass
class Alert:
    scope: tuple; date: date; detected_on: date; expected: float; actual: float; impact: float; kind: str; sign: int
    root_cause: list = field(default_factory=list); start: date | None = None; z: float = 0
    def line(self):
        d = lambda s: dict(zip(("account", "service", "region"), s))
        return dict(scope=d(self.scope), date=str(self.date), detected_on=str(self.detected_on), expected=round(float(self.expected), 2), actual=round(float(self.actual), 2),
                    impact=round(float(self.impact), 2), kind=self.kind, root_cause=[d(s) for s in self.root_cause], start=str(self.start), z=round(float(self.z),1))

class Detector:
    def __init__(self, min_daily, min_total, **kw):
        self.md, self.mt = min_daily, min_total
        self.p = dict(P, **kw)
        self.n = 0
        self.flag = np.zeros((0, 0), bool)
        self.open = np.zeros(0, bool); self.sign = np.zeros(0, int); self.start = np.zeros(0, int); self.last = np.zeros(0, int)
        self.alerted = np.zeros(0, int); self.adopted = np.zeros(0, bool); self.alt = np.zeros(0); self.regime = np.zeros(0, int); self.size = np.zeros(0)
        self.isnew = np.zeros(0, bool); self.group = np.zeros(0, int); self.groups = []
        self.outages = {}

    def grow(self, n, T):
        m = n - self.n
        if m > 0:
            for k in ("open", "sign", "start", "last", "alerted", "adopted", "alt", "regime", "size", "isnew", "group"):
                a = getattr(self, k); setattr(self, k, np.concatenate([a, np.zeros(m, a.dtype)]))
            self.group[self.n:] = -1
        f = np.zeros((n, T), bool); f[:self.flag.shape[0], :self.flag.shape[1]] = self.flag; self.flag = f
        self.n = n

    def run(self, A: Arrivals):
        p = self.p
        N, T = len(A.keys), A.days; t = T - 1
        self.grow(N, T)
        comp = learn(A)
        K = A.known
        acc, svc, reg = A.codes
        alerts = []
        # which days have not arrived
        w0 = max(0, T - 100)
        fl = self.flag[:, w0:]
        arrived = np.ones((N, T - w0), bool)
        for a in range(min(AGES, T)):
            arrived[:, T - 1 - a - w0] &= comp.arrives[a] | (K[:, T - 1 - a] != 0)
        out = self.find_outages(A, comp, alerts)
        for (ac, u) in out:
            if u >= w0: arrived[acc == ac, u - w0] = False
        lastday = np.arange(w0, T)
        counted = arrived & ~fl & (lastday[None, :] >= self.regime[:, None])
        cost = K[:, w0:].copy()
        fitcount = counted.copy()
        fitcount[:, max(0, T - w0 - 2):] = False
        # places are shifted so that weekday phases are absolute
        shift = w0 % WEEK
        if shift:
            pad = np.zeros((N, shift))
            B = fit(np.concatenate([pad, cost], 1), np.concatenate([pad.astype(bool), fitcount], 1), None, np.concatenate([pad.astype(bool), arrived], 1))
        else:
            B = fit(cost, fitcount, None, arrived)
        self.B = B
        if T < 28:
            return alerts
        ev = cost * counted
        onset_any = (K > 0)
        ever = onset_any.any(1)
        firston = np.where(ever, onset_any.argmax(1), T)
        # last on before the recent 28 days
        recent = K[:, max(0, T - 28):] > 0
        before = (K[:, max(0, T - 91):max(0, T - 28)] > 0).any(1) if T > 28 else np.zeros(N, bool)
        young = ever & ~before & recent.any(1) & (firston >= 30 if True else 0)
        young_start = np.where(recent.any(1), max(0, T - 28) + recent.argmax(1), T)
        young &= (young_start >= 30)
        onw = B.onrate_weekday
        regular = ~young & (B.onrate >= .9) & np.isfinite(B.level) & (B.history >= 12)
        inter = ~young & ~regular & ever
        lvl = np.where(np.isfinite(B.level), B.level, 0)
        slow = np.where(np.isfinite(B.slow), B.slow, lvl)
        jj = min(J, T)
        R = np.zeros((jj, N)); RS = np.zeros((jj, N)); SD = np.full((jj, N), 1.); ok = np.zeros((jj, N), bool); Y = np.zeros((jj, N)); E = np.zeros((jj, N)); G = np.zeros(jj)
        nonwhole = ~comp.whole[0]
        for a in range(jj):
            u = t - a
            V = K[:, u]
            off = comp.offset[a] if a < AGES else 0.0
            sp = comp.spread[a] if a < AGES else 0.0
            e = lvl + B.profile[:, u % WEEK]
            es = slow + B.profile[:, u % WEEK]
            lv = np.log(np.maximum(V, 1e-9))
            fine = arrived[:, u - w0]
            use = regular & nonwhole & fine & (V > 0) & ~self.open & (np.exp(lvl) > 0.02 * self.md)
            sd = np.sqrt(B.spread ** 2 + sp ** 2)
            x = lv - off - e
            c0 = comp.common[a] if a < AGES else 0.
            if use.sum() >= 8:
                g = wmedian(x[use], 1 / sd[use])
            else:
                g = c0
                sd = np.sqrt(sd ** 2 + (comp.common_spread[a] if a < AGES else 0) ** 2)
            if use.sum() >= 20:
                d = spread_over(((x - g) / sd)[use][None], np.ones((1, use.sum()), bool))[0]
                sd = sd * max(1.0, d)
            G[a] = g
            gg = np.where(nonwhole, g, 0)
            comp_part = np.where(nonwhole, (g if a <= 1 else 0) + off, 0)
            Y[a] = V / np.exp(comp_part)
            E[a] = np.exp(e + np.where(nonwhole & (a > 1), g, 0))
            floor = np.log(.02) + e
            R[a] = np.maximum(lv - off - gg, floor) - e
            RS[a] = np.maximum(lv - off - gg, floor) - es
            SD[a] = sd
            ok[a] = fine
        self.dbg = dict(R=R, SD=SD, ok=ok, Y=Y, E=E, G=G, RS=RS, regular=regular, young=young, inter=inter)
        # regimes remembered
        has_alt = self.adopted
        if has_alt.any():
            da = (lvl - self.alt)
            Ralt = R + da[None]
            pick = has_alt[None] & (np.abs(Ralt) < np.abs(R))
            R = np.where(pick, Ralt, R)
            RSa = RS + (slow - self.alt)[None]
            RS = np.where(has_alt[None] & (np.abs(RSa) < np.abs(RS)), RSa, RS)
        # the same day of the month, once before
        R, RS = self.calendar(A, R, RS, w0, arrived, B, lvl, jj, t)
        Y = np.where(regular[None] & (Y > 0), E * np.exp(R), Y)
        # fast windows
        okr = ok & regular[None]
        bestZ = np.full(N, -9.); bs = np.zeros(N, int); be = np.zeros(N, int)
        dZ = np.full(N, 9.); ds = np.zeros(N, int); de = np.zeros(N, int)
        for e in range(3):
            for k in (1, 2, 3):
                if e + k > jj: continue
                sl = slice(e, e + k)
                good = okr[sl].all(0)
                w = 1 / SD[sl] ** 2
                z = (R[sl] * w).sum(0) / np.sqrt(w.sum(0) * (1 + .35 * (k - 1)))
                z1 = np.where(good & ((R[sl] * w).sum(0) / w.sum(0) > np.log1p(p["rel1"])) & (R[sl].min(0) > np.log1p(p["rel1"])/2), z, -9)
                up = z1 > bestZ + .3
                bestZ = np.where(up, z1, bestZ); bs = np.where(up, e + k - 1, bs); be = np.where(up, e, be)
                if k >= 2:
                    neg = (Y[sl] < 0).any(0)
                    z2 = np.where(good & ~neg & (R[sl].max(0) < np.log(p["drop_ratio"])), z, 9)
                    dn = z2 < dZ - .3
                    dZ = np.where(dn, z2, dZ); ds = np.where(dn, e + k - 1, ds); de = np.where(dn, e, de)
        # slow windows
        sZ = np.full(N, -9.); ss = np.zeros(N, int)
        for k in (5, 9, 14):
            if k + 3 > jj: continue
            m = okr[:k]
            cnt = m.sum(0)
            mean = np.where(m, RS[:k], 0).sum(0) / np.maximum(cnt, 1)
            clipd = np.where(m, np.clip(RS[:k], None, 2.5*np.maximum(mean,.02)), 0).sum(0) / np.maximum(cnt, 1)
            sc = np.sqrt(B.spread ** 2 * (1.8 / np.maximum(cnt, 1) + .08) + p["b"] ** 2)
            low = np.sort(np.where(m, RS[:k], np.inf), 0)[k // 4]
            z = np.where((cnt >= .75 * k) & (clipd > np.log1p(p["relS"])) & np.isfinite(B.slow) & (low > .3*clipd), clipd / sc, -9)
            up = z > sZ + .3
            sZ = np.where(up, z, sZ); ss = np.where(up, k - 1, ss)
        cands = []
        for i in np.flatnonzero((bestZ > p["T1"]) | (sZ > p["TS"])):
            if self.open[i]: continue
            if bestZ[i] > p["T1"]:
                end, s = be[i], bs[i]
                ref = R[end:s + 1, i].mean(); rr = R[:, i]; ex = (Y - E)[:, i]
                z = bestZ[i]
                while s + 1 < min(jj, 6) and rr[s + 1] > max(.4 * ref, 1.5 * SD[s + 1, i]) and ok[s + 1, i]: s += 1
            else:
                end, s = 0, ss[i]
                while end < s and not ok[end, i]: end += 1
                ref = RS[end:s + 1, i].mean(); rr = RS[:, i]
                ex = Y[:, i] - E[:, i] * np.exp(slow[i] - lvl[i])
                z = sZ[i]
                while s + 1 < jj and rr[s + 1] > .3 * ref: s += 1
                while s > end and rr[s] < .3 * ref: s -= 1
            cands.append(self.cand(i, 1, end, s, ex, Y[:, i], ok[:, i], z, "slow" if bestZ[i] <= p["T1"] else "spike"))
        for i in np.flatnonzero(dZ < -p["TD"]):
            if self.open[i]: continue
            s = ds[i]
            while s + 1 < min(jj, 8) and R[s + 1, i] < np.log(p["drop_ratio"]) and ok[s + 1, i]: s += 1
            cands.append(self.cand(i, -1, de[i], s, (Y - E)[:, i], Y[:, i], ok[:, i], dZ[i], "drop"))
        # intermittent
        for i in np.flatnonzero(inter & ~self.open):
            for e in range(3):
                y = Y[e, i]
                if not ok[e, i] or y <= 0: continue
                if y > 2 * B.peak[i] and B.peak[i] > 0 and y > 0 and B.history[i] >= 3:
                    z = R[e, i] / max(B.spread[i], .35) if np.isfinite(B.level[i]) else 9
                    if z > 4:
                        exp_ = np.exp(lvl[i]) if np.isfinite(B.level[i]) else B.peak[i]
                        ex = np.zeros(jj); ex[e] = y - exp_
                        s = e
                        c = self.cand(i, 1, e, s, ex, Y[:, i], ok[:, i], z, "spike")
                        cands.append(c); break
        for i in np.flatnonzero(young & ~self.open):
            s = t - young_start[i]
            ex = Y[:, i].copy()
            e = 0
            while e < s and not (ok[e, i] and Y[e, i] > 0): e += 1
            cands.append(self.cand(i, 1, e, min(s, jj - 1), ex, Y[:, i], ok[:, i], 9, "new"))
        cands = [c for c in cands if c is not None]
        self.ctx = dict(R=R, RS=RS, SD=SD, ok=ok, Y=Y, E=E, regular=regular, young=young, lvl=lvl, slow=slow)
        cands += self.aggregates(A, cands, t)
        # update of open ones
        act = np.zeros(N, bool)
        for i in np.flatnonzero(self.open):
            self.update(i, t, R, Y, E, ok, lvl, slow, B, jj, young)
        self.emit(A, cands, alerts, t, Y, E)
        return alerts

    def cand(self, i, sign, end, s, ex, y, okk, z, kind):
        p = self.p
        x = np.where(okk[end:s + 1], ex[end:s + 1], 0) * sign
        if len(x) == 0: return None
        peak, tot = x.max(), x.sum()
        need = p["ct"] * self.mt
        if peak < self.md or tot < need: return None
        # the day to name: newest with at least half of the peak, an older age preferred when there is one
        best = next((d for d in range(len(x)) if x[d] >= .5 * peak and x[d] >= .6*self.md), int(x.argmax()))
        if end + best == 0 and len(x) > 1 and x[1] >= .5 * peak: best = 1
        d = end + best
        return dict(i=i, sign=sign, start=s, day=d, excess=sign * x[best], actual=y[d], impact=sign * x[best:].sum(), z=z, kind=kind, size=tot / len(x), end=end, rel=abs(np.log(max(.02, y[d] / max(y[d] - sign * x[best], 1e-6)))))

    def update(self, i, t, R, Y, E, ok, lvl, slow, B, jj, young):
        p = self.p
        s = self.sign[i]
        base = self.alt[i] if self.adopted[i] else (lvl[i] if not self.isnew[i] else None)
        for a in (3, 2, 1, 0):
            u = t - a
            if u < self.start[i] or not ok[a, i]: continue
            if self.isnew[i]:
                active = Y[a, i] > .2 * self.size[i]
            else:
                exp_ = E[a, i] * np.exp(base - lvl[i])
                if a == 0 and s < 0 and Y[0, i] <= 0: continue
                r = np.log(max(Y[a, i], .02 * exp_) / exp_)
                if self.adopted[i]:
                    active = abs(r) > abs(np.log(max(Y[a, i], .02 * exp_) / E[a, i])) or s * r > 2.5*self.B.spread[i] + .4*abs(lvl[i]-base)
                else:
                    active = s * r > max(1.5 * self.B.spread[i], .35 * self.size[i])
                    if active and a == 2: self.size[i] = max(self.size[i], .8*self.size[i] + .2 * s * r)
            if active:
                self.last[i] = max(self.last[i], u)
            if not self.adopted[i] or u > self.last[i]:
                pass
            self.flag[i, u] = active and not self.adopted[i]
        self.adoptable(i, t)

    def calendar(self, A, R, RS, w0, arrived, B, lvl, jj, t):
        """An excess that was there on the same day of an earlier month is expected again."""
        N, T = len(A.keys), A.days
        days = np.arange(T)
        wk = np.arange(max(0, T - 100), T)
        logs = np.log(np.maximum(A.known[:, w0:], 1e-9)) - B.profile[:, wk % WEEK]
        rem = np.full((2, jj, N), 0.0)
        for a in range(min(jj, 6)):
            today = A.day_at(t - a)
            best = np.zeros(N)
            for prior in same_days(today):
                u = A.place_of(prior)
                if u < w0 or u < 4: continue
                lo, hi = max(u - 7, w0), min(u + 8, T - 3)
                around = [x for x in range(lo, hi) if abs(x - u) > 2]
                if len(around) < 5: continue
                block = logs[:, np.array(around) - w0]
                med = np.median(block, 1)
                eff = logs[:, u - w0] - med
                eff = np.where(arrived[:, u - w0], np.clip(eff, -1, 1.5), 0)
                best = np.where(np.abs(R[a] - eff) < np.abs(R[a] - best), eff, best)
            cut = np.where(np.sign(best) == np.sign(R[a]), np.minimum(np.abs(best), np.abs(R[a])), 0) * np.sign(best)
            cut = np.where(np.abs(best) > 1.5 * B.spread, cut, 0)
            R[a] -= cut; RS[a] -= cut
        return R, RS

    def adoptable(self, i, t):
        p = self.p
        if t - self.last[i] > p["quiet"]:      # back to what it was
            if self.adopted[i]:
                self.flag[i, self.start[i]:self.last[i] + 1] = True
                self.regime[i] = 0
            self.open[i] = self.adopted[i] = False
            return
        if not self.adopted[i] and t - self.start[i] >= p["adopt"] and self.last[i] >= t - 4:
            run = self.flag[i, self.start[i]:t - 1].mean()
            if run > .6:
                self.adopted[i] = True
                self.alt[i] = self.B.level[i] if np.isfinite(self.B.level[i]) and not self.isnew[i] else -9
                self.flag[i, self.start[i]:] = False
                self.regime[i] = self.start[i]
        if self.adopted[i] and t - self.start[i] > 75:
            self.open[i] = self.adopted[i] = False

    def aggregates(self, A, cands, t):
        """Sums of series that are each too small or too noisy to stand out."""
        p = self.p; X = self.ctx; found = []
        have = {c["i"] for c in cands}
        free = X["regular"] & ~self.open
        R, SD, ok, Y, E = X["R"], X["SD"], X["ok"], X["Y"], X["E"]
        for dims in SCOPES:
            label, names = scoped(A, dims)
            n = np.bincount(label[free], minlength=len(names))
            nn = len(names)
            for e in (1, 2):
                for k in (1, 2, 3, 5):
                    sl = slice(e, e + k)
                    good = free & ok[sl].all(0)
                    def add(v): return np.bincount(label[good], weights=v[good], minlength=nn)
                    ys, es = add(Y[sl].sum(0)), add(E[sl].sum(0))
                    var = add(((E[sl] * SD[sl]) ** 2).sum(0) * (1.35 if k > 1 else 1))
                    cnt = np.bincount(label[good], minlength=nn)
                    up = good & (R[sl].mean(0) > .06)
                    mov = np.bincount(label[up], minlength=nn)
                    exm = np.bincount(label[good], weights=np.abs((Y[sl] - E[sl]).sum(0))[good], minlength=nn)
                    with np.errstate(divide="ignore", invalid="ignore"):
                        rel = (ys - es) / es
                        z = (ys - es) / np.sqrt(var + (p["bagg"] * es) ** 2)
                    hit = (cnt >= 2) & (z > p["TA"]) & (rel > p["rela"]) & (mov >= .6 * cnt) & ((ys - es) / k >= self.md) & (ys - es >= p["ct"] * self.mt)
                    for sidx in np.flatnonzero(hit):
                        members = np.flatnonzero(good & (label == sidx))
                        if any(m in have for m in members): continue
                        ex = (Y - E)[:, members]
                        lead = members[int(ex[sl].sum(0).argmax())]
                        c = dict(i=int(lead), sign=1, start=e + k - 1, day=e, end=e, z=float(z[sidx]), kind="wide", size=float((ys-es)[sidx] / k), rel=float(np.log1p(rel[sidx])),
                                 excess=float(ex[e, ex[e].argmax()]), actual=0., impact=float((ys - es)[sidx]))
                        found.append(c); have.update(members.tolist())
        return found

    def explain(self, A, c, t):
        """(scope, members): the widest scope most of whose series move with this one."""
        X = self.ctx; i = c["i"]; k = A.keys[i]
        leaf = (k.account, k.service, k.region)
        sl = slice(c["end"], c["start"] + 1)
        if c["kind"] == "new":
            mates = X["young"] & ~self.open
            r = X["Y"][sl].sum(0)
            moving = mates & (r > .03 * max(r[i], 1e-9))
            judged = mates | X["regular"]
            first = (A.known > 0).argmax(1)
            moving &= np.abs(first - first[i]) <= 3
        elif c["sign"] > 0:
            R = X["RS"] if c["kind"] == "slow" else X["R"]
            R, w, ok = R[sl], 1 / X["SD"][sl] ** 2, X["ok"][sl]
            w = np.where(ok, w, 0)
            tot = w.sum(0)
            mean = (R * w).sum(0) / np.maximum(tot, 1e-9)
            z = mean * np.sqrt(np.maximum(tot, 1e-9) / (1 if len(R) == 1 else 1.5))
            judged = X["regular"] & (tot > 0) & ~self.open & (np.exp(X["lvl"]) > .01 * self.md)
            ref = c["rel"]
            moving = judged & (z > self.p["zmove"]) & (mean > .3 * min(ref, 1.0))
            judged[i] = moving[i] = True
        else:
            R = X["R"][sl]
            judged = X["regular"] & X["ok"][sl].any(0) & ~self.open & (np.exp(X["lvl"]) > .01 * self.md)
            moving = judged & (R.max(0) < np.log(self.p["drop_ratio"]))
            judged[i] = moving[i] = True
        moving[i] = True
        best = (leaf, [i], 1)
        for dims, least, share in (((0, 1), 2, .5), ((0, 2), 2 if c["kind"] == "new" else 3, .25), ((1, 2), 2, .6), ((1,), 2, .6), ((0,), 3, .2)):
            same = np.ones(len(A.keys), bool)
            for d in dims: same &= A.codes[d] == A.codes[d][i]
            m, j = int((moving & same).sum()), int((judged & same).sum())
            if m >= least and m >= share * j and m > best[2]:
                best = (tuple(leaf[d] if d in dims else None for d in range(3)), np.flatnonzero(moving & same).tolist(), m)
        return best[0], best[1]

    def emit(self, A, cands, alerts, t, Y, E):
        cands.sort(key=lambda c: -abs(c["impact"]))
        taken = set()
        for c in cands:
            i = c["i"]
            if i in taken: continue
            scope, members = self.explain(A, c, t)
            members = [m for m in members if m not in taken]
            if c["kind"] == "wide" and None not in scope: continue
            if None in scope:
                members += [x["i"] for x in cands if x["i"] not in taken and x["i"] not in members and x["sign"] == c["sign"] and abs(x["start"] - c["start"]) <= 2
                            and (x["kind"] == "new") == (c["kind"] == "new") and covers(scope, A.keys[x["i"]])]
            ex = (Y - E); sl = slice(c["day"], c["start"] + 1)
            own = {x["i"]: x for x in cands}
            contrib = {}
            for m in members:
                x = own.get(m)
                contrib[m] = (x["excess"], x["impact"]) if x and x["day"] == c["day"] and x["start"] == c["start"] else ((Y[c["day"], m], Y[sl, m].sum()) if c["kind"] == "new" else (ex[c["day"], m], ex[sl, m].sum()))
            excess = sum(v[0] for v in contrib.values()); imp = sum(v[1] for v in contrib.values())
            act = sum(Y[c["day"], m] for m in members)
            joined = self.join(A, c, t)
            gid = joined if joined is not None else len(self.groups)
            if joined is None:
                self.groups.append(dict(t=t, start=t - c["start"], sign=c["sign"], lead=i, scope=scope, kind=c["kind"]))
            for m in members:
                taken.add(m)
                x = own.get(m, c)
                self.open[m] = True; self.sign[m] = c["sign"]; self.start[m] = t - x["start"]; self.last[m] = t - x["end"]; self.alerted[m] = t
                self.adopted[m] = False; self.isnew[m] = c["kind"] == "new"
                rel = x["rel"] if m in own else abs(float(np.log(max(.02, Y[c["day"], m] / max(E[c["day"], m], 1e-9)))))
                self.size[m] = Y[c["day"], m] if c["kind"] == "new" else rel
                self.group[m] = gid
                self.flag[m, t - x["start"]:t - x["end"] + 1] = True
            if joined is not None: continue
            order = sorted(members, key=lambda m: -abs(contrib[m][1]))
            tops = [(A.keys[m].account, A.keys[m].service, A.keys[m].region) for m in order[:5]]
            rc = [tops[0], scope] if abs(contrib[order[0]][1]) >= .6 * abs(imp) else [scope, *tops]
            day = c["day"]
            alerts.append(Alert(scope, A.day_at(t - day), A.day_at(t), act - excess, act, imp, c["kind"], c["sign"], list(dict.fromkeys(rc)), A.day_at(t - c["start"]), c["z"]))

    def join(self, A, c, t):
        k = A.keys[c["i"]]; kk = (k.account, k.service, k.region)
        for gid in range(len(self.groups) - 1, -1, -1):
            g = self.groups[gid]
            if g["t"] < t - 6: break
            if g["t"] == t or g["sign"] != c["sign"]: continue
            gap = abs(g["start"] - (t - c["start"]))
            sc = g["scope"]
            l = A.keys[g["lead"]]
            if None in sc and gap <= 2 and all(a is None or a == b for a, b in zip(sc, kk)): return gid
            if gap <= 1 and l.account == k.account and l.service == k.service: return gid
            if gap <= 2 and c["kind"] == "new" and g["kind"] == "new" and l.account == k.account and l.region == k.region: return gid
        return None

    def find_outages(self, A, comp, alerts):
        N, T = len(A.keys), A.days; t = T - 1
        if T < 20: return set()
        K = A.known; acc = A.codes[0]
        found = set()
        recent = K[:, max(0, T - 45):max(0, T - 10)] != 0
        steady = recent.mean(1) >= .9
        nacc = acc.max() + 1
        size = np.bincount(acc[steady], minlength=nacc)
        for a in range(min(10, T)):
            u = t - a
            exp_ = steady & (comp.arrives[a] if a < AGES else True)
            want = np.bincount(acc[exp_], minlength=nacc)
            have = np.bincount(acc[exp_ & (K[:, u] != 0)], minlength=nacc)
            for ac in np.flatnonzero((want >= 2) & (have <= .15 * want)):
                found.add((int(ac), u))
        return found

SCOPES = ((0, 1), (1,), (0,), (0, 2), (1, 2))

def covers(scope, k):
    return all(a is None or a == b for a, b in zip(scope, (k.account, k.service, k.region)))

def scoped(A, dims):
    code = np.zeros(len(A.keys), np.int64)
    for d in dims: code = code * (A.codes[d].max() + 1) + A.codes[d]
    names, label = np.unique(code, return_inverse=True)
    return label, names

def wmedian(x, w):
    o = np.argsort(x); c = np.cumsum(w[o]); return x[o][np.searchsorted(c, c[-1] / 2)]


def same_days(day):
    """The days that hold the same place, from the start or the end, in the three months before."""
    nxt = (day.replace(day=28) + timedelta(4)).replace(day=1)
    left = (nxt - day).days
    found = []
    first = day.replace(day=1)
    for _ in range(3):
        end = first
        first = (first - timedelta(1)).replace(day=1)
        length = (end - first).days
        if day.day <= length and day.day <= 16: found.append(first + timedelta(day.day - 1))
        if left <= length and left <= 10: found.append(end - timedelta(left))
    return found
