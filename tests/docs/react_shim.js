// As much of React as a hook needs, for tests: state that renders again, effects with dependencies and clean-up.
let current = null;

export function useState(initial) {
  const mounted = current;
  const slot = mounted.next++;
  mounted.slots[slot] ??= { value: initial };
  const set = (value) => {
    mounted.slots[slot].value = value;
    queueMicrotask(() => render(mounted));
  };
  return [mounted.slots[slot].value, set];
}

export function useEffect(effect, dependencies) {
  const mounted = current;
  const slot = mounted.next++;
  const before = mounted.slots[slot];
  if (before && before.dependencies.every((value, i) => value === dependencies[i])) return;
  before?.clean?.();
  mounted.slots[slot] = { dependencies };
  queueMicrotask(() => { mounted.slots[slot].clean = effect(); });
}

export function createElement(tag, _props, text) {
  return Object.assign(document.createElement(tag), { textContent: text });
}

export function mount(component, props, node) {
  const mounted = { component, props, node, slots: [], next: 0, gone: false };
  render(mounted);
  return {
    update: (changed) => { mounted.props = changed; render(mounted); },
    unmount: () => {
      mounted.gone = true;
      mounted.slots.forEach((slot) => slot.clean?.());
    },
  };
}

function render(mounted) {
  if (mounted.gone) return;
  current = Object.assign(mounted, { next: 0 });
  mounted.node.replaceChildren(mounted.component(mounted.props));
}
